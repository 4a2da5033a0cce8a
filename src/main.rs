//! The operator's binary.

use clap::Parser;
use verteil_token_operator::api;
use verteil_token_operator::args::{Cli, Command};
use verteil_token_operator::ready::ready;
use verteil_token_operator::start::start;

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Crd) => {
            use std::io::Write;
            std::io::stdout().write_all(api::to_yaml(&api::crd())?.as_bytes())?;
            Ok(())
        }
        Some(Command::Ready(args)) => ready(&args),
        Some(Command::Run(args)) => start(&args),
        None => start(&cli.run),
    }
}
