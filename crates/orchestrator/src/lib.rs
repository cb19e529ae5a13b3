//! The orchestrator: holds runs, answers agents and operators. The binary is `groundcrewd`.

pub mod agents;
pub mod api;
pub mod causes;
pub mod dashboard;
pub mod kubernetes;
pub mod listen;
pub mod live;
pub mod notify;
pub mod owner;
pub mod pair;
pub mod points;
pub mod report;
pub mod run;
pub mod serve;
pub mod settings;
pub mod store;
pub mod task;
pub mod tls;
