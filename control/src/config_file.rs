//! Changing the configuration file in place, as its author would: comments, order and spacing of
//! everything else stay.
//!
//! ```text
//!   read ─▶ check ─▶ change the document ─▶ check the new text ─▶ FILE.new ─▶ rename
//! ```
//!
//! INVARIANT: what replaces the file has passed `bulkhead check` without the tests of the policy,
//! has its mode and, if we may, its owner. Whatever goes wrong before the rename, the file is as it
//! was.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use bulkhead_config::Config;
use toml_edit::{Array, DocumentMut, Item, Table, value};

use crate::api::{Refusal, RefusalKind};
use crate::intent;

/// A configuration file that is being changed.
#[derive(Debug)]
pub struct ConfigFile {
    /// Where it is, links followed.
    path: PathBuf,
    /// As the operator named it.
    shown: PathBuf,
    before: String,
    config: Config,
    document: DocumentMut,
}

impl ConfigFile {
    /// Reads a file that is valid.
    ///
    /// # Errors
    ///
    /// [`RefusalKind::Invalid`] with every mistake: what is wrong already is not made worse.
    pub fn open(shown: &Path) -> Result<Self, Refusal> {
        let config = intent::read(shown)?;
        // A link to the file stays one.
        let path = fs::canonicalize(shown).map_err(|error| failed(shown, &error))?;
        let before = fs::read_to_string(&path).map_err(|error| failed(shown, &error))?;
        let document = before.parse::<DocumentMut>().map_err(|error| {
            let why = format!("{}: {error}", shown.display());
            Refusal::new(RefusalKind::Invalid, why)
        })?;
        Ok(Self { path, shown: shown.to_owned(), before, config, document })
    }

    /// What it says now, without the changes.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The folder in which its key files are looked up.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.shown.parent().filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// User and group of the first listener's key file: whoever reads that must read the others.
    #[must_use]
    pub fn key_owner(&self) -> Option<(u32, u32)> {
        let listeners = self.document.get("wireguard")?.as_table_like()?;
        let (_, first) = listeners.iter().next()?;
        let name = first.as_table_like()?.get("private_key_file")?.as_str()?;
        let facts = fs::metadata(self.folder().join(name)).ok()?;
        Some((facts.uid(), facts.gid()))
    }

    /// The table `[kind.NAME]`.
    pub fn table(&mut self, kind: &str, name: &str) -> Option<&mut Table> {
        self.document.get_mut(kind)?.as_table_mut()?.get_mut(name)?.as_table_mut()
    }

    /// Adds `[kind.NAME]` behind the last of its kind, with lines of comment in front.
    ///
    /// # Errors
    ///
    /// If the name is taken, or the file writes this kind in another form than tables.
    pub fn add(
        &mut self,
        kind: &str,
        name: &str,
        mut table: Table,
        comment: &str,
    ) -> Result<(), Refusal> {
        let form = || {
            let why = format!(
                "{}: {kind} is not written as [{kind}.NAME] tables; write them so, or add the \
                 {kind} by hand",
                self.shown.display()
            );
            Refusal::new(RefusalKind::Invalid, why)
        };
        let mut implicit = Table::new();
        implicit.set_implicit(true);
        let all = self.document.entry(kind).or_insert(Item::Table(implicit));
        let all = all.as_table_mut().ok_or_else(form)?;
        if all.contains_key(name) {
            let why = format!(
                "{}: there is a [{kind}.{name}] already; each name only once",
                self.shown.display()
            );
            return Err(Refusal::new(RefusalKind::Invalid, why));
        }
        let last = all.iter().filter_map(|(_, item)| last_position(item)).max();
        table.set_position(last);
        let lines: String = comment.lines().map(|line| format!("# {line}\n")).collect();
        table.decor_mut().set_prefix(format!("\n{lines}"));
        all.insert(name, Item::Table(table));
        Ok(())
    }

    /// Removes `[kind.NAME]` with everything below it and the comment in front of it; `false` if
    /// there is none.
    pub fn remove(&mut self, kind: &str, name: &str) -> bool {
        let all = self.document.get_mut(kind).and_then(Item::as_table_mut);
        all.and_then(|all| all.remove(name)).is_some()
    }

    /// Checks the changed text and puts it in the place of the file.
    ///
    /// # Errors
    ///
    /// Every mistake of the new text, [`RefusalKind::Busy`] if somebody else changed the file
    /// meanwhile, or what the system said. The file is as it was then.
    pub fn save(self) -> Result<Config, Refusal> {
        let text = self.document.to_string();
        let config = intent::parse(&self.shown, &text)
            .map_err(|errors| intent::invalid_change(&self.shown, &errors))?;
        let fresh = self.path.with_extension("toml.new");
        let replaced = self.replace(&fresh, &text);
        if replaced.is_err() {
            // Best effort: the next change writes over it.
            let _ = fs::remove_file(&fresh);
        }
        replaced.map(|()| config)
    }

    fn replace(&self, fresh: &Path, text: &str) -> Result<(), Refusal> {
        let written = || -> io::Result<()> {
            let facts = fs::metadata(&self.path)?;
            let mut file =
                File::options().write(true).create(true).truncate(true).mode(0o600).open(fresh)?;
            file.write_all(text.as_bytes())?;
            // Who is not root keeps it as its own.
            let _ = fchown(&file, Some(facts.uid()), Some(facts.gid()));
            file.set_permissions(facts.permissions())?;
            file.sync_all()
        };
        written().map_err(|error| failed(fresh, &error))?;
        let now = fs::read_to_string(&self.path).map_err(|error| failed(&self.shown, &error))?;
        if now != self.before {
            let why = format!(
                "{} was changed by somebody else meanwhile; nothing was done, try again",
                self.shown.display()
            );
            return Err(Refusal::new(RefusalKind::Busy, why));
        }
        fs::rename(fresh, &self.path).map_err(|error| failed(&self.shown, &error))?;
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        // The rename is done; at worst a power cut undoes it.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        Ok(())
    }
}

/// A table of texts, one key a line.
#[must_use]
pub fn texts<'a>(all: impl IntoIterator<Item = &'a str>) -> Item {
    value(all.into_iter().collect::<Array>())
}

fn last_position(item: &Item) -> Option<isize> {
    let table = item.as_table()?;
    let below = table.iter().filter_map(|(_, item)| last_position(item));
    table.position().into_iter().chain(below).max()
}

fn failed(path: &Path, error: &io::Error) -> Refusal {
    Refusal::new(RefusalKind::Refused, format!("{}: {error}; nothing was changed", path.display()))
}
