//! Real virtual machines: that what the other tests with guests stand on is so, and what systemd 252 makes of a reboot.

mod drains;
mod ground;
mod interrupts;
mod live;
mod power;
mod reboot;
mod resumed;
mod runs;
mod shipped;
mod tricks;
mod wipes;
