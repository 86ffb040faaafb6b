//! `bench`: measures grantd against its goals. script/bench builds it, gives it a PostgreSQL and runs it.
//!
//! bench [--quick] [SECTION…]
#![forbid(unsafe_code)]

use std::process::Command;

use grantd_load::bench::{Bench, SECTIONS};

fn main() -> anyhow::Result<()> {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    let given = names.len();
    names.retain(|name| name != "--quick");
    if names.iter().any(|name| name.starts_with('-')) {
        println!("bench [--quick] [SECTION…]");
        for (name, what, _) in SECTIONS {
            println!("  {name:<12} {what}");
        }
        return Ok(());
    }
    header();
    Bench::run(given > names.len(), &names)
}

/// What was measured, and on what.
fn header() {
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    println!(
        "commit      {} {}",
        said("git", &["rev-parse", "--short", "HEAD"]),
        said("git", &["diff", "--shortstat"])
    );
    println!("date        {}", said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]));
    println!("rustc       {}", said("rustc", &["--version"]));
    println!("processor   {} × {}", said("nproc", &[]), model.trim_start_matches([' ', '\t', ':']));
    println!("kernel      {}", said("uname", &["-sr"]));
    println!("load before {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
}
