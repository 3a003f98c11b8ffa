//! From text to [`Config`]: one pass over the tables, in an order in which everything that a
//! table refers to is already known.

mod client;
mod condition;
mod endpoint;
mod flow_log;
mod flows;
mod gateway;
mod group;
mod host;
mod policy;
mod syntax;
mod tunnel;
mod when;

use toml::Spanned;
use toml::de::DeTable;

use crate::error::{ConfigError, Mistake};
use crate::key::KeySource;
use crate::keys;
use crate::limits::FILE_BYTES_MAX;
use crate::names::Names;
use crate::reader::Reader;
use crate::section::Section;
use crate::source::Source;
use crate::{Config, ConfigErrors};

/// Reads a whole file.
pub(crate) fn config(path: &str, text: &str, keys: &dyn KeySource) -> Result<Config, ConfigErrors> {
    if text.len() > FILE_BYTES_MAX {
        let problem = format!("the file has {} bytes; at most {FILE_BYTES_MAX}", text.len());
        return Err(ConfigErrors::new(vec![ConfigError::of_file(path, problem)]));
    }
    let source = Source::new(path, text);
    let (document, defects) = DeTable::parse_recoverable(text);
    let syntax = syntax::errors(&source, &defects);
    let (config, meaning) = tables(&source, &document, keys);
    match config {
        Some(config) if syntax.0.is_empty() && meaning.is_empty() => Ok(config),
        Some(_) | None => Err(ConfigErrors::new(syntax::merge(syntax, meaning))),
    }
}

/// Reads all tables. No configuration comes without a mistake.
fn tables<'a>(
    source: &'a Source<'a>,
    document: &'a Spanned<DeTable<'a>>,
    keys: &'a dyn KeySource,
) -> (Option<Config>, Vec<ConfigError>) {
    let table = document.get_ref();
    let mut reader = Reader::new(source, keys, Names::of(table));
    let root = Section::of(&mut reader, table, String::new(), "", 0..0, keys::ROOT);
    schema(&mut reader, &root);

    let ports = gateway::ports(&mut reader, table);
    let gateway = gateway::gateway(&mut reader, &root, &ports);
    let flows = flows::flows(&mut reader, &root);
    let flow_log = flow_log::flow_log(&mut reader, &root);
    let wireguard = tunnel::listeners(&mut reader, table);
    let users = endpoint::users(&mut reader, table);
    let tags = endpoint::tags(&mut reader, table);
    let groups = group::groups(&mut reader, table);
    let mut prefixes = crate::prefix::Prefixes::default();
    let devices = endpoint::devices(&mut reader, table, &mut prefixes, &wireguard);
    let segments = endpoint::segments(&mut reader, table, &mut prefixes);
    let internet = host::internet(&mut reader, table, &prefixes);
    let public = internet.as_ref().map_or(&[][..], |_| crate::internet::networks());
    let hosts = host::hosts(&mut reader, table, &prefixes, public);
    gateway::room_for(&mut reader, &root, &gateway, devices.len());
    let attributes = condition::attributes(&mut reader, table);
    let postures = condition::postures(&mut reader, table);
    let services = policy::services(&mut reader, table);
    let rules = policy::rules(&mut reader, table);
    let tests = policy::tests(&mut reader, table, &devices, &segments);

    let config = (!wireguard.is_empty()).then(|| Config {
        path: source.path.to_owned(),
        gateway,
        flows,
        flow_log,
        ports,
        wireguard,
        users,
        tags,
        groups,
        devices,
        segments,
        hosts,
        internet,
        services,
        attributes,
        postures,
        rules,
        tests,
    });
    (config, reader.into_errors())
}

/// The version of the file's language. A later release that changes the meaning of a key raises
/// it, and reads older files as they were meant.
fn schema<'a>(reader: &mut Reader<'a>, root: &Section<'a>) {
    root.require(reader, "schema", "schema = 1, as the first line of the file");
    let Some(value) = root.value("schema") else { return };
    if value.get_ref().as_integer().is_none_or(|number| number.as_str() != "1") {
        let error = reader
            .mistake(&value.span(), "schema", Mistake::BadValue)
            .problem("this release reads schema 1 only")
            .accepted("1");
        reader.report(error);
    }
}
