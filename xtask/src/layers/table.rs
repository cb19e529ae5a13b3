//! The layers of the project, as a table: edit it here, and ARCHITECTURE.md in the same commit.

use May::{Any, Only};

/// Which workspace crates a crate may depend on, by package name.
#[derive(Debug, Clone, Copy)]
pub enum May {
    Any,
    Only(&'static [&'static str]),
}

/// One crate of the workspace.
#[derive(Debug)]
pub struct Crate {
    /// Its package name.
    pub package: &'static str,
    /// Its folder, from the root of the workspace.
    pub folder: &'static str,
    /// Its arrows to other crates of the workspace, in every kind of dependency.
    pub may_use: May,
    /// Packages that its tree of normal dependencies must not hold, nor any whose name begins with one of these and a
    /// dash (`sqlx` stands for `sqlx-core` too).
    pub never: &'static [&'static str],
    /// Packages that are shipped: their tree must not hold the feature `faults`.
    pub shipped: bool,
    /// The modules right beneath its root, highest first: each may use those after it, never those before it. Modules
    /// that are not built yet may stand here and keep their place.
    pub modules: &'static [&'static str],
}

/// Every crate of the workspace.
pub const CRATES: &[Crate] = &[
    Crate {
        package: "groundcrew-protocol",
        folder: "crates/protocol",
        may_use: Only(&[]),
        never: &["tokio", "hyper"],
        shipped: false,
        modules: &[
            "operator",
            "spec_diff",
            "report",
            "agent_info",
            "wire",
            "runtime",
            "drain",
            "plan",
            "profile",
            "inventory",
            "check",
            "limits",
            "stage",
            "ids",
            "time",
            "text_enum",
        ],
    },
    Crate {
        package: "groundcrew-archive",
        folder: "crates/archive",
        may_use: Only(&[]),
        never: &["tokio", "hyper"],
        shipped: false,
        modules: &["read", "meter", "error", "tree"],
    },
    Crate {
        package: "groundcrew-durable",
        folder: "crates/durable",
        may_use: Only(&[]),
        never: &["tokio", "hyper"],
        shipped: false,
        modules: &[
            "records",
            "agent_info",
            "drain_marker",
            "json",
            "lock",
            "epoch",
            "whole",
            "folder",
            "points",
            "fault",
            "error",
            "found",
        ],
    },
    Crate {
        package: "groundcrew-client",
        folder: "crates/client",
        may_use: Only(&["groundcrew-protocol"]),
        never: &["sqlx", "kube", "axum"],
        shipped: false,
        modules: &["client", "events", "connect", "outgoing", "error", "resolve", "dns", "pins", "url"],
    },
    Crate {
        package: "groundcrew-report",
        folder: "crates/report",
        may_use: Only(&["groundcrew-protocol"]),
        never: &["tokio", "hyper"],
        shipped: false,
        modules: &["html", "text", "hardware", "plot", "sample", "words"],
    },
    Crate {
        package: "groundcrew-agent",
        folder: "crates/agent",
        may_use: Only(&[
            "groundcrew-protocol",
            "groundcrew-durable",
            "groundcrew-client",
            "groundcrew-report",
        ]),
        never: &["sqlx", "kube", "axum"],
        shipped: true,
        modules: &[
            "cli",
            "supervise",
            "heartbeat",
            "hold",
            "power",
            "sensors",
            "drain",
            "vet",
            "interrupt",
            "package",
            "artifacts",
            "forward",
            "client",
            "outbox",
            "spool",
            "io_thread",
            "home",
            "control",
            "process",
            "probe",
            "settings",
            "clock",
            "backoff",
            "console",
            "stamp",
            "files",
            "errors",
            "points",
        ],
    },
    Crate {
        package: "groundcrew-orchestrator",
        folder: "crates/orchestrator",
        may_use: Only(&[
            "groundcrew-protocol",
            "groundcrew-archive",
            "groundcrew-durable",
            "groundcrew-report",
        ]),
        never: &["kube"],
        shipped: true,
        modules: &[
            "serve",
            "listen",
            "dashboard",
            "task",
            "kubernetes",
            "boot",
            "notify",
            "api",
            "report",
            "live",
            "run",
            "store",
            "tls",
            "settings",
            "owner",
            "causes",
        ],
    },
    Crate {
        package: "groundcrew-ctl",
        folder: "crates/ctl",
        may_use: Only(&["groundcrew-protocol", "groundcrew-client", "groundcrew-report"]),
        never: &["sqlx", "kube", "axum"],
        shipped: true,
        modules: &[
            "commands",
            "up",
            "watch",
            "tables",
            "why",
            "api",
            "context",
            "arguments",
            "profile_file",
            "output",
            "sample",
            "words",
            "error",
        ],
    },
    Crate {
        package: "groundcrew-tests",
        folder: "tests",
        may_use: Any,
        never: &[],
        shipped: false,
        modules: &["model", "guest", "harness"],
    },
    Crate {
        package: "groundcrew-bench",
        folder: "bench",
        may_use: Any,
        never: &[],
        shipped: false,
        modules: &[
            "agent",
            "heartbeats",
            "results",
            "logs",
            "step_output",
            "memory",
            "fleet",
            "bare_axum",
            "bare_inserts",
            "figures",
            "machine",
            "server",
            "load",
            "process",
        ],
    },
    Crate {
        package: "xtask",
        folder: "xtask",
        may_use: Only(&[]),
        never: &["tokio", "serde"],
        shipped: false,
        modules: &[
            "up",
            "bench",
            "dist",
            "arguments",
            "test",
            "guest",
            "layers",
            "release",
            "packages",
            "apt",
            "elf",
            "cargo",
        ],
    },
];

/// The row of a package.
pub fn row(package: &str) -> Option<&'static Crate> {
    CRATES.iter().find(|row| row.package == package)
}
