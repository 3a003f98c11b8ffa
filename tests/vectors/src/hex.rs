//! Bytes as text in the files, for serde's `with`.

use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(
    bytes: impl AsRef<[u8]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let text: String = bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    serializer.serialize_str(&text)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>, B: TryFrom<Vec<u8>>>(
    deserializer: D,
) -> Result<B, D::Error> {
    let text = String::deserialize(deserializer)?;
    let byte = |i: usize| text.get(i..i + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(byte).collect();
    bytes
        .and_then(|bytes| B::try_from(bytes).ok())
        .ok_or_else(|| serde::de::Error::custom("not the hexadecimal bytes that are wanted"))
}
