//! The dashed banner that begins every call, byte for byte as the reference prints it.
//!
//! It comes in three pieces, because a call can end between them: [`OPENING`] is all that a call with a wrong number of
//! arguments shows, and [`configuration`] all that one with a bad resource id does. Nothing is created by it.

use std::os::unix::ffi::OsStrExt;

use super::arguments::Call;
use super::pyrepr;
use super::resource_id::ResourceId;
use super::settings::Settings;

/// The first two lines.
pub const OPENING: &str = "--------------------\n-CLI CONFIGURATION--\n";
/// The last line.
const CLOSING: &str = "--------------------\n";

/// What was asked for and what the environment says, to be printed behind [`OPENING`]. Bytes, as folders may be any.
pub fn configuration(call: &Call, settings: &Settings) -> Vec<u8> {
    let mut banner = Vec::new();
    let mut line = |name: &str, value: &[u8]| banner.extend([name.as_bytes(), value, b"\n"].concat());
    let always_run_step = pyrepr::boolean(settings.always_run_step).as_bytes();
    line("mode: ", call.mode.to_string().as_bytes());
    line("root_mount: ", call.root_mount.as_os_str().as_bytes());
    line("copy_dir: ", call.copy_dir.as_os_str().as_bytes());
    line("interrupt_data: ", call.interrupt.as_deref().unwrap_or(pyrepr::NONE).as_bytes());
    line("always_run_step: ", always_run_step);
    line("-ENV CONFIGURATION--", b"");
    line("COPY_RESOLV: ", pyrepr::boolean(settings.copy_resolv).as_bytes());
    line("OVERLAY_ALWAYS_RUN_STEP: ", always_run_step);
    line("SKYHOOK_RESOURCE_ID: ", settings.resource_id.as_bytes());
    line("SKYHOOK_DATA_DIR: ", settings.data_dir.as_bytes());
    line("SKYHOOK_ROOT_DIR: ", settings.root_dir.as_bytes());
    line("SKYHOOK_LOG_DIR: ", settings.log_dir.as_bytes());
    line("SKYHOOK_AGENT_BUFFER_LIMIT: ", settings.buffer_limit.to_string().as_bytes());
    line("SKYHOOK_AGENT_WRITE_LOGS: ", pyrepr::boolean(settings.write_logs).as_bytes());
    line("Directory CONFIGURATION", b"");
    banner
}

/// Where the resource id places flags, logs and history. (The package's own config places them in truth.)
pub fn folders(settings: &Settings, id: &ResourceId) -> String {
    let (package, version) = (id.package(), id.version());
    let (root_dir, log_dir) = (&settings.root_dir, &settings.log_dir);
    format!(
        "flag_dir: {root_dir}/flags/{package}/{version}\n\
         log_dir: {log_dir}/{package}/{version}\n\
         history_file: {root_dir}/history/{package}.json\n\
         {CLOSING}"
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;

    use super::*;

    fn banner(arguments: &[&str], variables: &[(&str, &str)]) -> String {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
        let settings = Settings::read(|name| variables.get(name).map(OsString::from)).unwrap();
        let call = Call::parse(&arguments).unwrap();
        let mut text = OPENING.to_owned() + &String::from_utf8(configuration(&call, &settings)).unwrap();
        if let Ok(id) = ResourceId::parse(&settings.resource_id) {
            text += &folders(&settings, &id);
        }
        text
    }

    #[test]
    fn it_reads_as_recorded() {
        let id = "customer-f5a1d42e-74e5-4606-8bbc-b504fbe0074d-1_other_9.9.9";
        let found = banner(
            &["interrupt", "/host", "/opt/skyhook/sample", "eyJ0eXBlIjogIm5vX29wIn0="],
            &[
                ("SKYHOOK_RESOURCE_ID", id),
                ("SKYHOOK_DATA_DIR", "/pkg"),
                ("OVERLAY_ALWAYS_RUN_STEP", "true"),
                ("SKYHOOK_ROOT_DIR", "/srv/skyhook/"),
                ("SKYHOOK_LOG_DIR", "/srv/log"),
                ("SKYHOOK_AGENT_BUFFER_LIMIT", "0016"),
                ("SKYHOOK_AGENT_WRITE_LOGS", "false"),
            ],
        );
        let expected = "\
--------------------
-CLI CONFIGURATION--
mode: interrupt
root_mount: /host
copy_dir: /opt/skyhook/sample
interrupt_data: eyJ0eXBlIjogIm5vX29wIn0=
always_run_step: True
-ENV CONFIGURATION--
COPY_RESOLV: True
OVERLAY_ALWAYS_RUN_STEP: True
SKYHOOK_RESOURCE_ID: customer-f5a1d42e-74e5-4606-8bbc-b504fbe0074d-1_other_9.9.9
SKYHOOK_DATA_DIR: /pkg
SKYHOOK_ROOT_DIR: /srv/skyhook/
SKYHOOK_LOG_DIR: /srv/log
SKYHOOK_AGENT_BUFFER_LIMIT: 16
SKYHOOK_AGENT_WRITE_LOGS: False
Directory CONFIGURATION
flag_dir: /srv/skyhook//flags/other/9.9.9
log_dir: /srv/log/other/9.9.9
history_file: /srv/skyhook//history/other.json
--------------------
";
        assert_eq!(found, expected);
    }

    #[test]
    fn without_an_id_it_stops_before_the_folders() {
        let found = banner(&["frobnicate", "/copy"], &[("COPY_RESOLV", "false")]);
        let expected = "\
--------------------
-CLI CONFIGURATION--
mode: frobnicate
root_mount: /root
copy_dir: /copy
interrupt_data: None
always_run_step: False
-ENV CONFIGURATION--
COPY_RESOLV: False
OVERLAY_ALWAYS_RUN_STEP: False
SKYHOOK_RESOURCE_ID: \nSKYHOOK_DATA_DIR: /skyhook-package
SKYHOOK_ROOT_DIR: /etc/skyhook
SKYHOOK_LOG_DIR: /var/log/skyhook
SKYHOOK_AGENT_BUFFER_LIMIT: 8192
SKYHOOK_AGENT_WRITE_LOGS: True
Directory CONFIGURATION
";
        assert_eq!(found, expected);
    }
}
