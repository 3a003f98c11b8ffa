//! `bulkhead key`: the gateway's own keys.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use bulkhead_config::{Config, Listener};
use clap::Subcommand;
use serde::Serialize;
use toml_edit::{Item, value};

use super::text::columns;
use super::{Exit, Said, kept_keys};
use crate::api::{Refusal, RefusalKind};
use crate::config_file::ConfigFile;
use crate::{intent, key_file};

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a private key, as wg genkey does.
    Generate {
        /// A new file, mode 0600; then its public key is printed. Without it, the private key is.
        file: Option<PathBuf>,
    },
    /// Print the public key of every listener of the configuration file. Never a private one.
    Show,
    /// Change a listener's key without a gap, in two steps.
    ///
    /// The first adds a listener NAME-next on the same UDP port with a new key. Devices move to it
    /// one by one; both keys are good meanwhile. With --finish the new key takes the old one's place.
    Rotate {
        /// The NAME of a [wireguard.NAME].
        listener: String,
        /// All devices have moved: drop the old key.
        #[arg(long)]
        finish: bool,
    },
}

impl KeyCommand {
    pub(super) fn run(self, path: &Path, run_dir: &Path, json: bool) -> Said {
        let said = match self {
            Self::Generate { file } => generate(file.as_deref(), json),
            Self::Show => show(path, json),
            Self::Rotate { listener, finish: false } => begin(path, &listener, json),
            Self::Rotate { listener, finish: true } => finish(path, run_dir, &listener, json),
        };
        said.unwrap_or_else(|refusal| Said::refused(json, &refusal))
    }
}

fn refused(why: String) -> Refusal {
    Refusal::new(RefusalKind::Refused, why)
}

fn generate(file: Option<&Path>, json: bool) -> Result<Said, Refusal> {
    let private =
        key_file::new_private().map_err(|error| refused(format!("no key was made: {error}")))?;
    let public = private.public_key().to_string();
    let Some(file) = file else {
        let out = format!("{}\n", key_file::text_of(private.expose()).as_str());
        return Ok(Said { out, ..Said::default() });
    };
    write(file, private.expose(), None)?;
    let made = serde_json::json!({ "file": file, "public_key": public });
    let said = Said::new(json, &made, || format!("{public}\n"), Exit::Done);
    Ok(said.with_note(key_file::chown_advice([file])))
}

fn write(file: &Path, key: &[u8; 32], owner: Option<(u32, u32)>) -> Result<(), Refusal> {
    key_file::write_new(file, key, owner).map_err(|error| {
        let advice = if error.kind() == std::io::ErrorKind::AlreadyExists {
            "it may be somebody's only key; remove it first, or name another"
        } else {
            "nothing was changed"
        };
        refused(format!("{}: {error}; {advice}", file.display()))
    })
}

#[derive(Serialize)]
struct Key<'a> {
    listener: &'a str,
    listen_port: u16,
    public_key: String,
}

fn show(path: &Path, json: bool) -> Result<Said, Refusal> {
    let config = intent::read(path)?;
    let key = |listener: &Listener| (listener.listen_port, listener.public_key.to_string());
    let keys: Vec<Key<'_>> = config
        .wireguard
        .iter()
        .map(|listener| {
            let (listen_port, public_key) = key(listener);
            Key { listener: &listener.name, listen_port, public_key }
        })
        .collect();
    let text = || {
        let title = ["listener", "UDP port", "public key"].map(str::to_owned).to_vec();
        let rows = keys.iter().map(|key| {
            vec![key.listener.to_owned(), key.listen_port.to_string(), key.public_key.clone()]
        });
        columns(&std::iter::once(title).chain(rows).collect::<Vec<_>>())
    };
    Ok(Said::new(json, &serde_json::json!({ "keys": keys }), text, Exit::Done))
}

fn find<'a>(config: &'a Config, name: &str) -> Result<&'a Listener, Refusal> {
    let all = config.wireguard.iter();
    all.clone().find(|listener| listener.name == name).ok_or_else(|| {
        let names: Vec<_> = all.map(|listener| listener.name.as_str()).collect();
        refused(format!(
            "{}: there is no listener {name:?}; there are: {}",
            config.path,
            names.join(", ")
        ))
    })
}

fn begin(path: &Path, name: &str, json: bool) -> Result<Said, Refusal> {
    let mut file = ConfigFile::open(path)?;
    let next = format!("{name}-next");
    let (pinned, old) = {
        let config = file.config();
        let listener = find(config, name)?;
        if config.wireguard.iter().any(|listener| listener.name == next) {
            return Err(refused(format!(
                "{}: a change of the key of {name} is under way: there is a [wireguard.{next}]; \
                 end it with --finish, or remove that table",
                config.path
            )));
        }
        let at = config.wireguard.iter().position(|one| one.name == name);
        let pinned: Vec<_> = config
            .devices
            .iter()
            .filter(|device| device.listener.map(usize::from) == at)
            .map(|device| device.name.clone())
            .collect();
        (pinned, listener.public_key.to_string())
    };
    let key_name = free_name(file.folder(), &next)?;
    let mut table =
        file.table("wireguard", name).cloned().ok_or_else(|| not_a_table(path, name))?;
    table.insert("private_key_file", value(&key_name));
    // Comments stay with the table that they were written for.
    bare(&mut table);
    let comment = format!(
        "The next key of {name}: devices move here one by one. `bulkhead key rotate {name} --finish`\n\
         ends it."
    );
    file.add("wireguard", &next, table, &comment)?;
    let private =
        key_file::new_private().map_err(|error| refused(format!("no key was made: {error}")))?;
    let key_path = file.folder().join(&key_name);
    write(&key_path, private.expose(), file.key_owner())?;
    if let Err(refusal) = file.save() {
        let _ = std::fs::remove_file(&key_path);
        return Err(refusal);
    }
    let new = private.public_key().to_string();
    let text = || {
        let mut text = format!(
            "[wireguard.{next}] is in {}, its key in {}\n  old: {old}\n  new: {new}\nNext:\n  \
             1. bulkhead apply                              both keys are good from then on\n  \
             2. bulkhead device export NAME --listener {next}\n     for each device, or change \
             its PublicKey to the new one\n  \
             3. bulkhead peer list                          shows the listener each one uses\n  \
             4. bulkhead key rotate {name} --finish, bulkhead apply\n",
            path.display(),
            key_path.display()
        );
        if !pinned.is_empty() {
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "These devices say listener = \"{name}\" and cannot use the new key until that \
                 line goes: {}",
                pinned.join(", ")
            );
        }
        text
    };
    let begun = serde_json::json!({
        "listener": name, "next": next, "public_key": new, "private_key_file": key_name,
        "devices_of_the_old_only": pinned,
    });
    let advice = key_file::chown_advice([key_path.as_path()]);
    Ok(Said::new(json, &begun, text, Exit::Done).with_note(advice))
}

/// A name that no file has: the key of the last rotation has the first of them, and is in use.
fn free_name(folder: &Path, next: &str) -> Result<String, Refusal> {
    let names = (1..1_000).map(|n| match n {
        1 => format!("{next}.key"),
        n => format!("{next}-{n}.key"),
    });
    let is_free = |name: &String| folder.join(name).symlink_metadata().is_err();
    names.into_iter().find(is_free).ok_or_else(|| {
        refused(format!(
            "{}: {next}.key to {next}-999.key are all there; remove those that the configuration \
             does not name",
            folder.display()
        ))
    })
}

fn finish(path: &Path, run_dir: &Path, name: &str, json: bool) -> Result<Said, Refusal> {
    let mut file = ConfigFile::open(path)?;
    let next = format!("{name}-next");
    find(file.config(), name)?;
    let public = match file.config().wireguard.iter().find(|listener| listener.name == next) {
        Some(listener) => listener.public_key.to_string(),
        None => {
            return Err(refused(format!(
                "{}: no change of the key of {name} is under way: there is no [wireguard.{next}]; \
                 begin with: bulkhead key rotate {name}",
                path.display()
            )));
        }
    };
    let not_a_table = |name: &str| not_a_table(path, name);
    let new = file
        .table("wireguard", &next)
        .and_then(|table| table.get("private_key_file"))
        .and_then(Item::as_str)
        .map(str::to_owned)
        .ok_or_else(|| not_a_table(&next))?;
    let table = file.table("wireguard", name).ok_or_else(|| not_a_table(name))?;
    let old = table.get("private_key_file").and_then(Item::as_str).unwrap_or_default().to_owned();
    // Only the value: the comment above it, and behind it, stays.
    if let Some(Item::Value(written)) = table.get_mut("private_key_file") {
        let decor = written.decor().clone();
        *written = new.as_str().into();
        *written.decor_mut() = decor;
    }
    file.remove("wireguard", &next);
    let old_path = file.folder().join(&old);
    file.save()?;
    let needed_by = kept_keys::named_by(run_dir, &old);
    let text = || {
        let needs = match needed_by.iter().map(u64::to_string).collect::<Vec<_>>() {
            none if none.is_empty() => "a rollback to before it".to_owned(),
            all => format!("a rollback to generation {}", all.join(", ")),
        };
        let old = old_path.display();
        format!(
            "listener {name} has the new key {public}; put it in force: bulkhead apply\nonce that is \
             confirmed, the old key serves only {needs}: remove {old} when none of that is wanted \
             any more\n"
        )
    };
    let done = serde_json::json!({
        "listener": name, "public_key": public, "unused_key_file": old_path,
        "generations_with_the_old_key": needed_by,
    });
    Ok(Said::new(json, &done, text, Exit::Done))
}

fn not_a_table(path: &Path, name: &str) -> Refusal {
    refused(format!(
        "{}: wireguard.{name} is not written as a [wireguard.{name}] table; write it so first",
        path.display()
    ))
}

/// Takes the comments off a copied table and everything below it.
fn bare(table: &mut toml_edit::Table) {
    table.set_position(None);
    table.decor_mut().clear();
    for (mut key, item) in table.iter_mut() {
        key.leaf_decor_mut().clear();
        match item {
            Item::Table(below) => {
                bare(below);
                below.decor_mut().set_prefix("\n");
            }
            Item::Value(written) => {
                written.decor_mut().clear();
            }
            Item::None | Item::ArrayOfTables(_) => {}
        }
    }
}
