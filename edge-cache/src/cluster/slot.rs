//! Which of the 16,384 slots a key belongs to, as the cluster counts it.

/// So many slots does every cluster have.
pub(crate) const SLOTS: u16 = 16_384;

const TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte: u16 = 0;
    while byte < 256 {
        let mut crc = byte << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[byte as usize] = crc;
        byte += 1;
    }
    table
}

/// CRC-16/XMODEM of the hash tag (what stands in the first braces, unless that is nothing), else of the
/// whole key.
pub(crate) fn slot(key: &[u8]) -> u16 {
    let tagged = key.iter().position(|&byte| byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|&byte| byte == b'}').map(|close| &rest[..close])
    });
    let counted = tagged.filter(|tag| !tag.is_empty()).unwrap_or(key);
    let crc = counted
        .iter()
        .fold(0_u16, |crc, byte| crc << 8 ^ TABLE[usize::from(crc.to_be_bytes()[0] ^ byte)]);
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fall_where_the_cluster_says() {
        // Redis's specification gives the first; the others are what CLUSTER KEYSLOT says.
        for (key, expected) in [
            ("123456789", 0x31C3),
            ("foo", 12_182),
            ("{foo}bar", 12_182),
            ("a{foo}{bar}", 12_182),
            ("{}foo", slot_of_whole("{}foo")),
            ("foo{", slot_of_whole("foo{")),
            ("", 0),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    fn slot_of_whole(key: &str) -> u16 {
        key.bytes()
            .fold(0_u16, |crc, byte| crc << 8 ^ TABLE[usize::from(crc.to_be_bytes()[0] ^ byte)])
            % SLOTS
    }
}
