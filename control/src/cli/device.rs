//! `bulkhead device`: devices in the configuration file, and the files that they themselves need.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use bulkhead_config::{Config, Device, Listener};
use bulkhead_wg::PrivateKey;
use clap::{ArgGroup, Args, Subcommand};
use ipnet::IpNet;
use serde::Serialize;
use toml_edit::{Table, value};
use zeroize::Zeroizing;

use super::text::columns;
use super::{Exit, Said};
use crate::api::{Refusal, RefusalKind};
use crate::config_file::{ConfigFile, texts};
use crate::{intent, key_file, pool, wg_quick};

#[derive(Debug, Subcommand)]
pub(super) enum DeviceCommand {
    /// Add a device to the configuration file. Then: bulkhead apply.
    ///
    /// The file keeps its comments and order. What would not pass bulkhead check is not written.
    Add(Add),
    /// List the devices of the configuration file.
    List,
    /// Show one device of the configuration file.
    Show {
        /// Its NAME in [device.NAME].
        name: String,
    },
    /// Remove a device from the configuration file. Then: bulkhead apply.
    ///
    /// Refused while a group, a rule or a test names it. Its preshared key file stays.
    Remove {
        /// Its NAME in [device.NAME].
        name: String,
    },
    /// Print the file that wg-quick on the device reads, with the preshared key if there is one.
    Export(Export),
    /// Print the same as a QR code, for the WireGuard apps on phones.
    Qr(Export),
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("key").required(true).args(["public_key", "generate"])))]
pub(super) struct Add {
    /// Its NAME in [device.NAME].
    name: String,
    /// Whose it is: the NAME of a [user.NAME].
    #[arg(long)]
    user: Option<String>,
    /// A mark that it carries, the NAME of a [tag.NAME]. May be repeated.
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// What it may send from, such as 10.44.0.7/32. May be repeated. Without it, the next free
    /// address of each network of wireguard.NAME.client.pool.
    #[arg(long = "address", value_name = "PREFIX")]
    addresses: Vec<IpNet>,
    /// Its public key, made on the device. Nobody else then ever has its private key.
    #[arg(long, value_name = "KEY")]
    public_key: Option<String>,
    /// Make its key pair here. The private key is printed once, or written to --private-key-file,
    /// and kept nowhere else: not in the configuration, not by the gateway.
    #[arg(long)]
    generate: bool,
    /// Where --generate writes the private key: a new file, mode 0600.
    #[arg(long, value_name = "FILE", requires = "generate")]
    private_key_file: Option<PathBuf>,
    /// Make a preshared key too, in NAME.psk beside the configuration file, mode 0600.
    #[arg(long)]
    psk: bool,
    /// The only listener that accepts it, the NAME of a [wireguard.NAME]. Without it, all.
    #[arg(long)]
    listener: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// Its NAME in [device.NAME].
    name: String,
    /// A file with the device's private key; - is standard input. Without it, the file is complete
    /// but for that line.
    #[arg(long, value_name = "FILE")]
    private_key_file: Option<PathBuf>,
    /// The listener that the device shall use, if there are several: the NAME of a [wireguard.NAME].
    #[arg(long)]
    listener: Option<String>,
}

impl DeviceCommand {
    pub(super) fn run(self, path: &Path, json: bool) -> Said {
        let said = match self {
            Self::Add(arguments) => arguments.run(path, json),
            Self::List => list(path, json),
            Self::Show { name } => show(path, &name, json),
            Self::Remove { name } => remove(path, &name, json),
            Self::Export(arguments) => arguments
                .text(path)
                .map(|text| Said { out: String::clone(&text), ..Said::default() }),
            Self::Qr(arguments) => arguments.text(path).and_then(|text| {
                let out = qr(&text)?;
                Ok(Said { out, ..Said::default() })
            }),
        };
        said.unwrap_or_else(|refusal| Said::refused(json, &refusal))
    }
}

/// A device as it is listed.
#[derive(Serialize)]
struct Shown<'a> {
    name: &'a str,
    user: Option<&'a str>,
    public_key: String,
    preshared_key: bool,
    addresses: Vec<String>,
    tags: &'a [String],
    listener: Option<&'a str>,
    endpoint: Option<String>,
    keepalive_s: Option<u64>,
    line: u32,
}

impl<'a> Shown<'a> {
    fn new(config: &'a Config, device: &'a Device) -> Self {
        let only = device.listener.and_then(|at| config.wireguard.get(usize::from(at)));
        Self {
            name: &device.name,
            user: device.user.as_deref(),
            public_key: device.public_key.to_string(),
            preshared_key: device.preshared_key.is_some(),
            addresses: device.addresses.iter().map(ToString::to_string).collect(),
            tags: &device.tags,
            listener: only.map(|listener| listener.name.as_str()),
            endpoint: device.endpoint.as_ref().map(ToString::to_string).or_else(|| {
                let name = device.endpoint_name.as_ref()?;
                Some(format!("{}:{}", name.host, name.port))
            }),
            keepalive_s: device.keepalive.map(|interval| interval.as_secs()),
            line: device.place.line,
        }
    }
}

/// What was done to the file.
#[derive(Serialize)]
struct Added<'a> {
    device: &'a str,
    public_key: String,
    addresses: Vec<String>,
    private_key: Option<&'a str>,
    preshared_key_file: Option<String>,
}

impl Add {
    fn run(self, path: &Path, json: bool) -> Result<Said, Refusal> {
        let mut file = ConfigFile::open(path)?;
        let addresses = self.addresses(file.config())?;
        let private = self.generate.then(key_file::new_private).transpose().map_err(no_key)?;
        let public = match (&private, &self.public_key) {
            (Some(private), _) => private.public_key().to_string(),
            (None, key) => key.clone().unwrap_or_default(),
        };
        let psk_name = self.psk.then(|| format!("{}.psk", self.name));
        file.add("device", &self.name, self.table(&public, &addresses, psk_name.as_deref()), "")?;
        let mut made = Made::default();
        if let Some(name) = &psk_name {
            let key = key_file::new_preshared().map_err(no_key)?;
            made.write(file.folder().join(name), &key, file.key_owner())?;
        }
        if let (Some(private), Some(place)) = (&private, &self.private_key_file) {
            made.write(place.clone(), private.expose(), None)?;
        }
        let folder = file.folder().to_owned();
        file.save()?;
        // The private key is the device's, not the daemon's.
        let psk = psk_name.as_ref().map(|name| folder.join(name));
        let advice = key_file::chown_advice(psk.as_deref());
        made.keep();
        let shown = match &self.private_key_file {
            None => private.as_ref().map(|private| key_file::text_of(private.expose())),
            Some(_) => None,
        };
        let added = Added {
            device: &self.name,
            public_key: public,
            addresses,
            private_key: shown.as_ref().map(|key| key.as_str()),
            preshared_key_file: psk_name,
        };
        let said = Said::new(json, &added, || self.text(path, &added), Exit::Done);
        Ok(said.with_note(advice))
    }

    fn addresses(&self, config: &Config) -> Result<Vec<String>, Refusal> {
        if !self.addresses.is_empty() {
            return Ok(self.addresses.iter().map(ToString::to_string).collect());
        }
        let listeners = config.wireguard.iter();
        let listener = match &self.listener {
            Some(name) => listeners.clone().find(|listener| listener.name == *name),
            None => listeners.clone().find(|listener| !listener.client.pool.is_empty()),
        };
        let Some(listener) = listener.filter(|listener| !listener.client.pool.is_empty()) else {
            let why = format!(
                "{}: no address was given, and no wireguard.NAME.client.pool to take one from; \
                 say --address 10.44.0.7/32, or write pool = [\"10.44.0.0/24\"]",
                config.path
            );
            return Err(Refusal::new(RefusalKind::Invalid, why));
        };
        let next = |net: &IpNet| {
            pool::next_free(config, *net).map(|free| free.to_string()).ok_or_else(|| {
                let why = format!(
                    "wireguard.{}.client.pool: every address of {net} belongs to a device, a \
                     segment or a host; add a network",
                    listener.name
                );
                Refusal::new(RefusalKind::Invalid, why)
            })
        };
        listener.client.pool.iter().map(next).collect()
    }

    fn table(&self, public: &str, addresses: &[String], psk: Option<&str>) -> Table {
        let mut table = Table::new();
        if let Some(user) = &self.user {
            table.insert("user", value(user));
        }
        table.insert("public_key", value(public));
        if let Some(psk) = psk {
            table.insert("preshared_key_file", value(psk));
        }
        table.insert("addresses", texts(addresses.iter().map(String::as_str)));
        if let Some(listener) = &self.listener {
            table.insert("listener", value(listener));
        }
        if !self.tags.is_empty() {
            let tags: Vec<_> = self.tags.iter().map(|tag| format!("tag:{}", bare(tag))).collect();
            table.insert("tags", texts(tags.iter().map(String::as_str)));
        }
        table
    }

    fn text(&self, path: &Path, added: &Added<'_>) -> String {
        let (name, mut text) = (added.device, String::new());
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "device {name} is in {}, with {}; put it in force: bulkhead apply",
            path.display(),
            added.addresses.join(" and ")
        );
        match (added.private_key, &self.private_key_file) {
            (Some(key), _) => {
                let _ = writeln!(text, "its private key, shown once and kept nowhere:\n{key}");
            }
            (None, Some(place)) => {
                let place = place.display();
                let _ = writeln!(
                    text,
                    "its private key is in {place}, and nowhere else; for the device:\n  \
                     bulkhead device export {name} --private-key-file {place}\nthen remove {place}"
                );
            }
            (None, None) => {}
        }
        text
    }
}

impl Export {
    fn text(&self, path: &Path) -> Result<Zeroizing<String>, Refusal> {
        let config = intent::read(path)?;
        let device = find(&config, &self.name)?;
        let listener = self.listener(&config, device)?;
        let private: Option<PrivateKey> = self
            .private_key_file
            .as_deref()
            .map(|place| {
                key_file::read_private(place).map_err(|error| {
                    let why = format!("{}: {error}", place.display());
                    Refusal::new(RefusalKind::Refused, why)
                })
            })
            .transpose()?;
        wg_quick::export(&config, device, listener, private.as_ref())
    }

    fn listener<'a>(&self, config: &'a Config, device: &Device) -> Result<&'a Listener, Refusal> {
        let names = || config.wireguard.iter().map(|one| one.name.as_str()).collect::<Vec<_>>();
        let only = device.listener.and_then(|at| config.wireguard.get(usize::from(at)));
        let refused = |why: String| Refusal::new(RefusalKind::Refused, why);
        match (&self.listener, only, config.wireguard.as_slice()) {
            (Some(name), Some(only), _) if *name != only.name => Err(refused(format!(
                "device {} is accepted by listener {} only, not by {name}",
                device.name, only.name
            ))),
            (Some(name), _, all) => all.iter().find(|one| one.name == *name).ok_or_else(|| {
                refused(format!("there is no listener {name:?}; there are: {}", names().join(", ")))
            }),
            (None, Some(only), _) => Ok(only),
            (None, None, [one]) => Ok(one),
            (None, None, _) => Err(refused(format!(
                "there are several listeners: {}; say which: --listener NAME",
                names().join(", ")
            ))),
        }
    }
}

fn list(path: &Path, json: bool) -> Result<Said, Refusal> {
    let config = intent::read(path)?;
    let all: Vec<_> = config.devices.iter().map(|device| Shown::new(&config, device)).collect();
    let text = || {
        let title = ["device", "user", "addresses", "tags", "public key"];
        let mut rows = vec![title.map(str::to_owned).to_vec()];
        rows.extend(all.iter().map(|device| {
            vec![
                device.name.to_owned(),
                device.user.unwrap_or("").to_owned(),
                device.addresses.join(","),
                device.tags.join(","),
                device.public_key.clone(),
            ]
        }));
        columns(&rows)
    };
    Ok(Said::new(json, &serde_json::json!({ "devices": all }), text, Exit::Done))
}

fn show(path: &Path, name: &str, json: bool) -> Result<Said, Refusal> {
    let config = intent::read(path)?;
    let shown = Shown::new(&config, find(&config, name)?);
    let text = || {
        let or = |text: Option<&str>, none: &str| text.unwrap_or(none).to_owned();
        let rows = [
            ("device", shown.name.to_owned()),
            ("defined", format!("{}:{}", path.display(), shown.line)),
            ("user", or(shown.user, "none")),
            ("public key", shown.public_key.clone()),
            ("preshared key", if shown.preshared_key { "yes" } else { "no" }.to_owned()),
            ("addresses", shown.addresses.join(", ")),
            ("tags", shown.tags.join(", ")),
            ("listener", or(shown.listener, "any")),
            ("endpoint", or(shown.endpoint.as_deref(), "wherever it speaks from")),
        ];
        columns(&rows.map(|(what, how)| vec![what.to_owned(), how]))
    };
    Ok(Said::new(json, &shown, text, Exit::Done))
}

fn remove(path: &Path, name: &str, json: bool) -> Result<Said, Refusal> {
    let mut file = ConfigFile::open(path)?;
    find(file.config(), name)?;
    if !file.remove("device", name) {
        let why = format!("{}: device {name} is not a [device.NAME] table", path.display());
        return Err(Refusal::new(RefusalKind::Invalid, why));
    }
    file.save()?;
    let said = || {
        format!(
            "device {name} is not in {} any more; put it in force: bulkhead apply\n",
            path.display()
        )
    };
    Ok(Said::new(json, &serde_json::json!({ "removed": name }), said, Exit::Done))
}

fn find<'a>(config: &'a Config, name: &str) -> Result<&'a Device, Refusal> {
    config.devices.iter().find(|device| device.name == name).ok_or_else(|| {
        let names = config.devices.iter().map(|device| device.name.as_str());
        let near = bulkhead_config::nearest(name, names);
        let hint = near.map_or_else(
            || "bulkhead device list shows all".to_owned(),
            |near| format!("did you mean {near}?"),
        );
        let why = format!("{}: there is no device {name:?}; {hint}", config.path);
        Refusal::new(RefusalKind::Refused, why)
    })
}

/// For a terminal with a dark background, as nearly all have: the light modules are drawn.
fn qr(text: &str) -> Result<String, Refusal> {
    use qrcode::render::unicode::Dense1x2;
    let code = qrcode::QrCode::new(text.as_bytes()).map_err(|error| {
        let why = format!("{} bytes do not fit a QR code ({error}); use device export", text.len());
        Refusal::new(RefusalKind::Refused, why)
    })?;
    let (drawn, blank) = (Dense1x2::Light, Dense1x2::Dark);
    Ok(code.render::<Dense1x2>().dark_color(drawn).light_color(blank).build() + "\n")
}

/// Tags may be given with their kind, as the file writes them.
fn bare(tag: &str) -> &str {
    tag.strip_prefix("tag:").unwrap_or(tag)
}

fn no_key(error: std::io::Error) -> Refusal {
    Refusal::new(RefusalKind::Refused, format!("no key could be made: {error}"))
}

/// Key files that go again if the configuration does not take them.
#[derive(Default)]
struct Made(Vec<PathBuf>);

impl Made {
    fn write(
        &mut self,
        path: PathBuf,
        key: &[u8; 32],
        owner: Option<(u32, u32)>,
    ) -> Result<(), Refusal> {
        key_file::write_new(&path, key, owner).map_err(|error| {
            let why = format!("{}: {error}; nothing was changed", path.display());
            Refusal::new(RefusalKind::Refused, why)
        })?;
        self.0.push(path);
        Ok(())
    }

    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = fs::remove_file(path);
        }
    }
}
