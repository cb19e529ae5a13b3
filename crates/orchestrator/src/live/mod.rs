//! What is known of runs in memory, and what agents are answered from it.

pub mod answer;
