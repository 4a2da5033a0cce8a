//! Container images without a container daemon: the operator's own, and those of its tests.
//!
//! - [`archive`]: an OCI image layout in one tar file, of files given with their content.
//! - [`operator`]: what the operator's image consists of. The `Dockerfile` takes its files from here as well.
//! - [`build`]: the operator's binary for it, static and the same from every folder.
//! - [`notices`]: the licences of what is linked into that binary.
//!
//! The same inputs make the same bytes, and with that the same digest: no times, owners or orders of the machine come in.

pub mod archive;
pub mod build;
pub mod notices;
pub mod operator;
