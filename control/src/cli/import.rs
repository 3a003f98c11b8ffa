//! `bulkhead import`: from what somebody has to a configuration of ours.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bulkhead_config::counted;
use clap::Subcommand;
use serde::Serialize;

use super::{Exit, Said};
use crate::api::{Refusal, RefusalKind};
use crate::import::{Imported, wg_quick};
use crate::{intent, key_file};

#[derive(Debug, Subcommand)]
pub(super) enum ImportCommand {
    /// Turn the wg-quick file of an existing hub into a configuration.
    ///
    /// The comment in front of a peer becomes the device's name, keys go into files of mode 0600
    /// beside the output. Every line that cannot be carried over is said, with its number.
    WgQuick {
        /// The file, such as /etc/wireguard/wg0.conf; its name becomes the listener's.
        file: PathBuf,
        /// Write the configuration here, a new file, and the key files beside it. Without it, the
        /// configuration is printed and no key is written.
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The network device that the devices' packets arrive on.
        #[arg(long, value_name = "DEVICE", default_value = "eth0")]
        device: String,
    },
}

/// The largest file that is read: 100,000 peers have some 25 MB.
const FILE_MAX: u64 = 64 << 20;

#[derive(Serialize)]
struct Summary<'a> {
    devices: usize,
    output: Option<&'a Path>,
    key_files: Vec<&'a str>,
    not_carried_over: Vec<Left<'a>>,
}

#[derive(Serialize)]
struct Left<'a> {
    line: usize,
    text: &'a str,
}

impl ImportCommand {
    pub(super) fn run(self, json: bool) -> Said {
        let Self::WgQuick { file, output, device } = self;
        match import(&file, output.as_deref(), &device, json) {
            Ok(said) => said,
            Err(refusal) => Said::refused(json, &refusal),
        }
    }
}

fn import(file: &Path, output: Option<&Path>, device: &str, json: bool) -> Result<Said, Refusal> {
    let failed = |path: &Path, why: &dyn std::fmt::Display| {
        Refusal::new(
            RefusalKind::Refused,
            format!("{}: {why}; nothing was written", path.display()),
        )
    };
    let name = file.file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
    let fits = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !fits || !first {
        let why = "its name would be the listener's: letters, digits, - and _ only; rename a copy";
        return Err(failed(file, &why));
    }
    let facts = fs::metadata(file).map_err(|error| failed(file, &error))?;
    if !facts.is_file() || facts.len() > FILE_MAX {
        return Err(failed(file, &format!("not a regular file of at most {FILE_MAX} bytes")));
    }
    let text = fs::read_to_string(file).map(zeroize::Zeroizing::new);
    let text = text.map_err(|error| failed(file, &error))?;
    let out = wg_quick(&text, name, device);
    let mut advice = None;
    if let Some(output) = output {
        write(&out, output)?;
        let folder = output.parent().unwrap_or(Path::new(""));
        let keys: Vec<_> = out.keys.iter().map(|(name, _)| folder.join(name)).collect();
        let made = [output].into_iter().chain(keys.iter().map(PathBuf::as_path));
        advice = key_file::chown_advice(made);
    }
    let summary = Summary {
        devices: out.devices,
        output,
        key_files: out.keys.iter().map(|(name, _)| name.as_str()).collect(),
        not_carried_over: out
            .notes
            .iter()
            .map(|note| Left { line: note.line, text: &note.text })
            .collect(),
    };
    if json {
        return Ok(Said::new(true, &summary, String::new, Exit::Done).with_note(advice));
    }
    let shown = file.display();
    let mut err: String =
        out.notes.iter().map(|note| format!("{shown}:{}: {}\n", note.line, note.text)).collect();
    let written = match output {
        Some(output) => {
            let (devices, keys, output) = (out.devices, out.keys.len(), output.display());
            format!(
                "{} in {output}, {} in files beside it; give those to the user that bulkheadd runs \
                 as, and write rules, then: bulkhead check {output}\n",
                counted(devices, "device"),
                counted(keys, "key"),
            )
        }
        None => {
            err += &format!(
                "without --output no key file is written: {}\n",
                summary.key_files.join(", ")
            );
            out.toml.clone()
        }
    };
    Ok(Said { out: written, err, exit: Exit::Done }.with_note(advice))
}

/// All of it, or nothing: what was written before a failure is removed again.
fn write(out: &Imported, output: &Path) -> Result<(), Refusal> {
    let folder = output.parent().unwrap_or(Path::new(""));
    let keys = out.keys.iter().map(|(name, key)| (folder.join(name), key.as_bytes()));
    let mut made = vec![];
    let all = || -> Result<(), Refusal> {
        for (path, content) in keys.chain([(output.to_owned(), out.toml.as_bytes())]) {
            new_file(&path, content).map_err(|error| {
                let why = format!("{}: {error}; nothing was written", path.display());
                Refusal::new(RefusalKind::Refused, why)
            })?;
            made.push(path);
        }
        intent::read(output).map(drop)
    };
    let result = all();
    if result.is_err() {
        for path in made {
            let _ = fs::remove_file(path);
        }
    }
    result
}

fn new_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let written =
        file.write_all(content).and_then(|()| file.write_all(b"\n")).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}
