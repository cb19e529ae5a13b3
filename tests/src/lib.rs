//! What the tests over agent and orchestrator share: the model of the whole walk.

pub mod model;
