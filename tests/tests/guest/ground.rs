//! A guest does what it is told, and what it tells is so: commands, files, units, reboots, power cuts, the way to the
//! host.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use groundcrew_tests::guest::words::Ended;
use groundcrew_tests::guest::{Call, Guest, Lost, Unit, left_out};

#[test]
fn a_guest_runs_what_it_is_told_and_reaches_the_host() {
    if left_out() {
        return;
    }
    let mut guest = Guest::boot("commands");
    assert_eq!(guest.ok(&["ps", "-o", "comm=", "-p", "1"]).trim(), "systemd");
    assert!(guest.ok(&["systemctl", "--version"]).starts_with("systemd 252"));
    assert_eq!(guest.boots(), [guest.sh("cat /proc/sys/kernel/random/boot_id").trim()]);
    commands_end_as_they_end(&guest);
    files_arrive_as_they_are(&guest);
    units_live_as_services_do(&guest);
    the_hosts_loopback_is_reached(&mut guest);
    guest.put_binary("groundcrew");
    let version = guest.ok(&["groundcrew", "--version"]);
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

fn commands_end_as_they_end(guest: &Guest) {
    let finished = guest.run(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(
        (finished.ended, finished.stdout.as_str(), finished.stderr.as_str()),
        (Ended::Exit(7), "out\n", "err\n")
    );
    assert_eq!(guest.run(&["sh", "-c", "kill -15 $$"]).ended, Ended::Signal(15));
    let missing = guest.run(&["/no/such/program"]).ended;
    assert!(matches!(&missing, Ended::NotStarted(why) if why.contains("/no/such/program")), "{missing:?}");
    let call = Call::new(&["sh", "-c", "cat; printf %s \"$WORD\""]).env("WORD", "a b").stdin(b"in\n");
    assert_eq!(guest.try_call(&call).unwrap().stdout, "in\na b");
    let endless = Call::new(&["sleep", "infinity"]).deadline(Duration::from_secs(1));
    assert_eq!(guest.try_call(&endless).unwrap().ended, Ended::Deadline);
    // What a command leaves running keeps nobody waiting.
    assert_eq!(guest.sh("sleep infinity & echo $!").lines().count(), 1);
    let long = guest.sh("i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done");
    assert_eq!(long.lines().count(), 20_000);
}

fn files_arrive_as_they_are(guest: &Guest) {
    let bytes: Vec<u8> = (0..=255).cycle().take(300_001).collect();
    guest.put("/opt/a folder/bytes", 0o640, &bytes);
    assert_eq!(guest.ok(&["stat", "-c", "%a %s", "/opt/a folder/bytes"]).trim(), "640 300001");
    guest.put("/opt/a folder/bytes", 0o600, b"shorter\n");
    assert_eq!(guest.read("/opt/a folder/bytes").as_deref(), Some("shorter\n"));
    assert_eq!(guest.read("/opt/none"), None);
}

fn units_live_as_services_do(guest: &Guest) {
    guest.start_unit(
        &Unit::new("short", &["sh", "-c", "echo $WORD; echo err >&2; exit 3"]).env("WORD", "said"),
    );
    let end = guest.wait_for_unit_end("short");
    assert_eq!((end.result.as_str(), end.code.as_str(), end.status.as_str()), ("exit-code", "exited", "3"));
    assert_eq!(guest.unit_output("short"), ("said\n".to_owned(), "err\n".to_owned()));
    guest.start_unit(&Unit::new("long", &["sleep", "infinity"]));
    assert_eq!(guest.unit_state("long.service"), "active");
    assert_eq!(guest.unit_end("long"), None);
    guest.ok(&["systemctl", "stop", "long.service"]);
    guest.wait_for_unit_state("long.service", "inactive");
    let end = guest.wait_for_unit_end("long");
    assert_eq!((end.result.as_str(), end.code.as_str(), end.status.as_str()), ("success", "killed", "TERM"));
}

fn the_hosts_loopback_is_reached(guest: &mut Guest) {
    let listener = TcpListener::bind((Ipv4Addr::new(127, 9, 8, 7), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let host = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut asked = [0; 6];
        stream.read_exact(&mut asked).unwrap();
        stream.write_all(b"here\n").unwrap();
        asked
    });
    let (to, port) = {
        let address = guest.address_of(address);
        let (to, port) = address.split_once(':').unwrap();
        (to.to_owned(), port.to_owned())
    };
    let script = format!("exec 3<>/dev/tcp/{to}/{port}; printf there? >&3; cat <&3");
    assert_eq!(guest.ok(&["bash", "-c", &script]), "here\n");
    assert_eq!(&host.join().unwrap(), b"there?");
    assert_eq!(guest.address_of(address), format!("{to}:{port}"), "an address stays as it is");
}

#[test]
fn a_guest_keeps_its_disk_over_reboots_and_power_cuts() {
    if left_out() {
        return;
    }
    let mut guest = Guest::boot("disk");
    let first = guest.boot_id();
    guest.put("/etc/kept", 0o644, b"written before the reboot\n");
    // It was started as a service is, and hears of the reboot as one does.
    guest
        .start_unit(&Unit::new("told", &["sh", "-c", "systemctl reboot; echo code $?; exec sleep infinity"]));
    let second = guest.wait_for_next_boot(&first);
    assert_eq!(guest.boots(), [first.clone(), second.clone()]);
    assert_eq!(guest.read("/etc/kept").as_deref(), Some("written before the reboot\n"));
    assert_eq!(guest.unit_output("told").0, "code 0\n");
    assert_eq!(guest.unit_end("told").map(|end| end.status).as_deref(), Some("TERM"));

    guest.sh("echo synced >/var/kept; sync /var/kept /var; mkdir /run/gone");
    guest.cut_power();
    assert!(!guest.is_on());
    guest.power_on();
    let third = guest.boot_id();
    assert_eq!(guest.boots(), [first, second, third.clone()]);
    assert_eq!(guest.read("/var/kept").as_deref(), Some("synced\n"));
    assert_eq!(guest.read("/etc/kept").as_deref(), Some("written before the reboot\n"));
    assert_eq!(guest.read("/run/gone"), None, "a power cut leaves no memory");

    // A command that was under way is lost and not run again.
    let lost = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            guest.try_call(&Call::new(&["sh", "-c", "echo x >>/etc/once; sync; exec sleep infinity"]))
        });
        groundcrew_tests::harness::eventually("the command", || guest.read("/etc/once"));
        let _told_or_lost = guest.try_call(&Call::new(&["reboot", "-ff"]));
        waiting.join().unwrap()
    });
    assert_eq!(lost, Err(Lost::Rebooted));
    let fourth = guest.wait_for_next_boot(&third);
    assert_eq!(guest.boots().last(), Some(&fourth));
    assert_eq!(guest.read("/etc/once").as_deref(), Some("x\n"));

    let _told_or_lost = guest.try_call(&Call::new(&["systemctl", "poweroff"]));
    guest.wait_for_power_off();
    assert_eq!(guest.boots().len(), 4);
}
