//! `[host]` and `[internet]`: addresses by name, and all those that have none.

use ipnet::IpNet;
use toml::de::DeTable;

use crate::error::Mistake;
use crate::prefix::{Prefixes, network};
use crate::reader::Reader;
use crate::section::Section;
use crate::selector::{self, Accepted, Kind};
use crate::{Host, Internet, Selector, internet, keys};

pub(super) fn hosts<'a>(
    reader: &mut Reader<'a>,
    root: &'a DeTable<'a>,
    prefixes: &Prefixes,
    internet: &[IpNet],
) -> Vec<Host> {
    const ACCEPTED: &str = "a list of networks, for example [\"10.20.1.7/32\", \"fd44::7/128\"]";
    let mut hosts = Vec::new();
    for section in reader.named(root, "host", keys::HOST) {
        let key = section.key("addresses");
        let mut addresses = Vec::new();
        for text in section.required_texts(reader, "addresses", ACCEPTED) {
            let Some(net) = network(reader, &key, &text) else { continue };
            let led_to = prefixes.touch(&net.value) || internet::touches(internet, net.value);
            if !led_to {
                let error = reader
                    .mistake(&net.span, &key, Mistake::Conflict)
                    .problem("nothing leads there")
                    .found(text.value)
                    .accepted("addresses inside or around those of a device or segment")
                    .help("a host names addresses; the device or segment they are in leads there");
                reader.report(error);
            }
            addresses.push(net.value);
        }
        let place = reader.place(&section.span);
        hosts.push(Host { name: section.name.to_owned(), place, addresses });
    }
    hosts
}

pub(super) fn internet<'a>(
    reader: &mut Reader<'a>,
    root: &'a DeTable<'a>,
    prefixes: &Prefixes,
) -> Option<Internet> {
    let value = root.get("internet")?;
    let path = "internet".to_owned();
    let section = Section::open(reader, value, path, "internet", value.span(), keys::INTERNET)?;
    let place = reader.place(&section.span);
    let via = section.required_text(reader, "via", "device:NAME");
    if let Some(owner) = prefixes.everything() {
        let error = reader
            .mistake(&section.span, "internet", Mistake::Conflict)
            .problem(format!("{owner} has the default route, so no address is left for it"))
            .accepted("either [internet] or a network of prefix length 0");
        reader.report(error);
    }
    let via = via.and_then(|text| {
        let kinds = Accepted::kinds(&[Kind::Device]);
        selector::one(reader, &section.key("via"), &text, kinds)
    });
    // Without a way the table was wrong, and has been reported; hosts on the way are not.
    let via = match via {
        Some(Selector::Device(name)) => name,
        Some(_) | None => String::new(),
    };
    Some(Internet { place, via })
}
