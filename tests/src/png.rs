//! Pictures for tests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A picture that no compression makes smaller, as base64: noise in `side` rows of `side` pixels of
/// three bytes.
pub fn noise(side: u32) -> String {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut rows = Vec::with_capacity((side * (side * 3 + 1)) as usize);
    for _ in 0..side {
        rows.extend([0]);
        for _ in 0..side * 3 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            rows.push(state as u8);
        }
    }
    let mut header = Vec::new();
    header.extend(side.to_be_bytes());
    header.extend(side.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, data) in [
        (b"IHDR", header),
        (b"IDAT", stored(&rows)),
        (b"IEND", Vec::new()),
    ] {
        let mut chunk = kind.to_vec();
        chunk.extend(data);
        png.extend((chunk.len() as u32 - 4).to_be_bytes());
        png.extend(&chunk);
        png.extend(crc(&chunk).to_be_bytes());
    }
    STANDARD.encode(&png)
}

/// A zlib stream that compresses nothing.
fn stored(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let mut blocks = data.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        let size = block.len() as u16;
        out.push(u8::from(blocks.peek().is_none()));
        out.extend(size.to_le_bytes());
        out.extend((!size).to_le_bytes());
        out.extend(block);
    }
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    out.extend((b << 16 | a).to_be_bytes());
    out
}

fn crc(data: &[u8]) -> u32 {
    let table: Vec<u32> = (0..256_u32)
        .map(|n| {
            (0..8).fold(n, |c, _| {
                if c & 1 == 1 {
                    0xedb8_8320 ^ (c >> 1)
                } else {
                    c >> 1
                }
            })
        })
        .collect();
    !data.iter().fold(!0, |crc, byte| {
        table[((crc ^ u32::from(*byte)) & 0xff) as usize] ^ (crc >> 8)
    })
}
