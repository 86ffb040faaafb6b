//! `bench`: measures grantd against its goals. script/bench builds it, starts a PostgreSQL and runs it.
#![forbid(unsafe_code)]

mod contest;
mod generator;
mod report;
mod sections;
mod stock;

use std::path::PathBuf;
use std::process::Command;

use clap::Parser as _;

use sections::{Bench, SECTIONS};

#[derive(clap::Parser)]
#[command(name = "bench", override_help = help())]
struct Arguments {
    #[arg(long)]
    quick: bool,
    /// The grantd that is measured, instead of the one beside this program.
    #[arg(long)]
    grantd: Option<PathBuf>,
    sections: Vec<String>,
}

// The main thread does nothing while a load runs on threads of its own.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    print_conditions();
    Bench::run(arguments.quick, arguments.grantd, &arguments.sections).await
}

fn help() -> String {
    let sections: String = SECTIONS.iter().map(|(name, what, _)| format!("\n  {name:<12} {what}")).collect();
    format!(
        "bench [--quick] [--grantd PROGRAM] [SECTION…]\n\n\
         A section's name stands for those that begin with it too: scale for scale-start.\n{sections}"
    )
}

/// Prints the commit and the machine.
fn print_conditions() {
    let output_of = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let commit = output_of("git", &["rev-parse", "--short", "HEAD"]);
    println!("commit      {commit} {}", output_of("git", &["diff", "--shortstat"]));
    println!("date        {}", output_of("date", &["-u", "+%Y-%m-%d %H:%M UTC"]));
    println!("rustc       {}", output_of("rustc", &["--version"]));
    println!("processor   {} × {}", output_of("nproc", &[]), model.trim_start_matches([' ', '\t', ':']));
    println!("kernel      {}", output_of("uname", &["-sr"]));
    println!("load before {}", std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim());
}
