//! Who asks, as expressions (`when`) see it.

use std::collections::{BTreeSet, HashMap};

use bulkhead_config::{Config, Known, Name, Selector};

/// A device, for `principal`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asker {
    name: String,
    user: Option<String>,
    groups: Vec<String>,
    tags: Vec<String>,
}

impl Asker {
    /// What stands under a name; `None` for names that are about something else, and for the user of
    /// a device that is nobody's.
    pub(crate) fn known(&self, name: &Name) -> Option<Known<'_>> {
        match name {
            Name::Device => Some(Known::Text(&self.name)),
            Name::User => self.user.as_deref().map(Known::Text),
            Name::Groups => Some(Known::Texts(&self.groups)),
            Name::Tags => Some(Known::Texts(&self.tags)),
            Name::Attribute(_) | Name::Weekday | Name::Minute => None,
        }
    }
}

/// All devices by name.
#[derive(Debug, Default)]
pub(crate) struct Askers {
    by_name: HashMap<String, Asker>,
}

impl Askers {
    pub(crate) fn of(config: &Config) -> Self {
        let mut above: HashMap<&Selector, Vec<&str>> = HashMap::new();
        for group in &config.groups {
            for member in &group.members {
                above.entry(member).or_default().push(&group.name);
            }
        }
        let asker = |device: &bulkhead_config::Device| {
            let user = device.user.iter().map(|user| Selector::User(user.clone()));
            let tags = device.tags.iter().map(|tag| Selector::Tag(tag.clone()));
            let mut left: Vec<Selector> = user.chain(tags).collect();
            left.push(Selector::Device(device.name.clone()));
            let mut groups = BTreeSet::new();
            while let Some(member) = left.pop() {
                for group in above.get(&member).map_or(&[][..], Vec::as_slice) {
                    if groups.insert(*group) {
                        left.push(Selector::Group((*group).to_owned()));
                    }
                }
            }
            let asker = Asker {
                name: device.name.clone(),
                user: device.user.clone(),
                groups: groups.into_iter().map(str::to_owned).collect(),
                tags: device.tags.clone(),
            };
            (device.name.clone(), asker)
        };
        Self { by_name: config.devices.iter().map(asker).collect() }
    }

    pub(crate) fn get(&self, device: &str) -> Option<&Asker> {
        self.by_name.get(device)
    }
}
