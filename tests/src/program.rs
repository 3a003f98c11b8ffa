//! Where the programs under test are, and the ones that they are tested with.

use std::env;
use std::path::PathBuf;

use crate::{During, Failure};

/// Says where to look instead; `make test` and `make demo` set it.
const FOLDER_VARIABLE: &str = "BULKHEAD_BIN_DIR";

/// Where `cargo install --root target/tools` of the Makefile puts its programs.
const TOOLS_VARIABLE: &str = "BULKHEAD_TOOLS_DIR";

/// The path of one of our programs (`bulkheadd`, `bulkhead`, `bulkhead-datapath`,
/// `bulkhead-probe`): in `$BULKHEAD_BIN_DIR`, else beside the running program, which is where
/// cargo puts both.
///
/// # Errors
///
/// If it has not been built.
pub fn program(name: &str) -> Result<PathBuf, Failure> {
    let folder = match env::var_os(FOLDER_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => folder_of_this_program()?,
    };
    existing(
        folder.join(name),
        "build it with `cargo build --workspace --bins`, or use `make test`",
    )
}

/// The path of a client that is not packaged by Debian (`boringtun-cli`, `gotatun`): in
/// `$BULKHEAD_TOOLS_DIR`, else in `target/tools/bin` of the repository.
///
/// # Errors
///
/// If it is not installed.
pub fn tool(name: &str) -> Result<PathBuf, Failure> {
    existing(tools().join(name), "`make tools` installs it")
}

/// The path of a file of the guest's kernel (`vmlinuz`, `modules/…`, `busybox`): in `linux` beside
/// the folder of the tools.
///
/// # Errors
///
/// If it is not unpacked.
pub(crate) fn linux(name: &str) -> Result<PathBuf, Failure> {
    existing(tools().with_file_name("linux").join(name), "`make tools` unpacks it")
}

fn tools() -> PathBuf {
    match env::var_os(TOOLS_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/bin")),
    }
}

fn existing(path: PathBuf, advice: &str) -> Result<PathBuf, Failure> {
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::new(format!("there is no {}: {advice}", path.display())))
}

/// Test executables are in `deps`, one below the programs.
fn folder_of_this_program() -> Result<PathBuf, Failure> {
    let path = env::current_exe().during(|| "asking for the path of this program".into())?;
    let folder = path.parent().ok_or_else(|| Failure::new("this program is in no folder"))?;
    match (folder.file_name(), folder.parent()) {
        (Some(name), Some(above)) if name == "deps" => Ok(above.to_path_buf()),
        _ => Ok(folder.to_path_buf()),
    }
}
