//! What the machine itself takes, beside which a figure stands: single times move with the machine.

use std::hint::black_box;
use std::io::{Read, Write};

/// Bytes of a message.
pub(crate) const MESSAGE: usize = 80;

/// pipe(2): so many messages, each with a copy in and out of the kernel of the machine.
pub(crate) fn piped() -> impl FnMut(u64) {
    let (mut reader, mut writer) = std::io::pipe().expect("the machine has pipes");
    let (sent, mut read) = ([7u8; MESSAGE], [0u8; MESSAGE]);
    move |count| {
        for _ in 0..count {
            writer.write_all(black_box(&sent)).expect("there is room");
            reader.read_exact(&mut read).expect("it is there");
            assert_eq!(read[MESSAGE - 1], 7);
        }
    }
}
