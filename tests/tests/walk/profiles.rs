//! Profiles of the walks. Throttling is the machine's affair, not the tests'.

/// One load of a second.
pub const LOAD: &str = r#"
name = "load"
in_service = true
[[stage]]
name = "CPUStress"
deadline = "10m"
[stage.cpu_stress]
duration = "1s"
workers = 1
throttled_percent_max = 100.0
"#;

/// A load, and a stage behind it that has nobody to speak with: the run is held there.
pub const LOAD_THEN_HELD: &str = r#"
name = "load-then-held"
in_service = true
[[stage]]
name = "CPUStress"
deadline = "10m"
[stage.cpu_stress]
duration = "1s"
workers = 1
throttled_percent_max = 100.0
[[stage]]
name = "Network"
"#;

/// The inventory of this machine, and a load.
pub const INVENTORY_AND_LOAD: &str = r#"
name = "inventory-and-load"
in_service = true
[[stage]]
name = "Inventory"
[[stage]]
name = "CPUStress"
deadline = "10m"
[stage.cpu_stress]
duration = "1s"
workers = 1
throttled_percent_max = 100.0
"#;
