//! The operator's binary.

#[cfg(not(all(target_env = "musl", target_arch = "x86_64")))]
use std::alloc::System as Allocator;

use clap::Parser;
#[cfg(all(target_env = "musl", target_arch = "x86_64"))]
use tikv_jemallocator::Jemalloc as Allocator;
use verteil_token_operator::api;
use verteil_token_operator::args::{Cli, Command};
use verteil_token_operator::ready::ready;
use verteil_token_operator::start::start;
use zeroizing_alloc::ZeroAlloc;

/// All memory is wiped when it is freed.
///
/// Passwords and tokens pass through buffers of libraries that do not do it themselves: the client for the apiserver (body,
/// JSON, `Secret`), the one for issuers (headers, body), TLS, templates, and the logs that are being written. So it is done for
/// all of them at once, which also covers what grows and is moved. [`secrecy`] marks what holds a secret, so that it has no
/// `Debug` and is not copied by mistake.
///
/// Not covered: what is still in use, which is a token that no Secret holds yet, and the last message in the buffers of an open
/// connection; stacks, where no secret was found; the kernel's buffers, swap and core dumps. A test of the suite
/// (`leak/memory.rs`) reads the memory of the running process.
#[global_allocator]
static WIPING: ZeroAlloc<Allocator> = ZeroAlloc(Allocator);

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
