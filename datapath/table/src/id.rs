//! The small numbers that tables speak in. In all of them zero is the one that may nothing, where
//! there is such a one.

use core::fmt;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident($inner:ty),)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name(pub $inner);

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    self.0.fmt(f)
                }
            }
        )*
    };
}

ids! {
    /// One device, site or segment. 0 is nobody.
    EndpointId(u32),
    /// A policy class: endpoints that no rule can tell apart. 0 may nothing.
    LabelId(u16),
    /// A WireGuard peer, by its place in the datapath's array.
    PeerIndex(u32),
    /// A segment.
    SegmentId(u16),
    /// A port of the gateway.
    PortIndex(u8),
    /// A rule of the configuration, in the order of the file.
    RuleIndex(u32),
    /// A rule by its name, whichever table it is in. 0 is no rule.
    RuleTag(u64),
}

impl RuleTag {
    /// No rule: what is denied because none allows it.
    pub const NONE: Self = Self(0);
}
