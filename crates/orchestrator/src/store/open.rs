//! Opening: what stands in the data folder is looked at before anything is written.
