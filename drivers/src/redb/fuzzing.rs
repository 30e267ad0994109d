//! What the records of the database are fuzzed with. They stand under the checksums of its pages, which a check of
//! the whole store looks at: what is promised of them is that bytes which are no record, or a record and more, are told, and that what is taken as one is written again as the same one.

use arbitrary::Unstructured;
use nexus_kernel::hal::{StoreError, TreeId};
use nexus_messages::{Lsn, OpId};

use super::codec::{
    decode_number, decode_place, decode_record, encode_number, encode_place, encode_record, repeatable_op,
};

pub(crate) fn record(u: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let cut = u.int_in_range(0..=u16::MAX)?;
    let longer: u8 = u.arbitrary()?;
    // Most records are of a known version, or little would come of them. The place in the log comes right behind the flags.
    let lsn: u8 = u.int_in_range(0..=127)?;
    let mut bytes = if u.ratio(9, 10)? { vec![1, u.int_in_range(0..=3)?] } else { Vec::new() };
    if bytes.get(1).is_some_and(|flags| flags & 1 != 0) {
        bytes.extend_from_slice(&u.arbitrary::<[u8; 16]>()?);
    }
    bytes.push(lsn);
    bytes.extend_from_slice(u.bytes(u.len())?);
    let read = |bytes: &[u8]| decode_record(TreeId(0), Lsn(lsn.into()), bytes);
    match read(&bytes) {
        Ok(record) => {
            let op = repeatable_op(&bytes);
            let written = encode_record(&record, op.is_some()).expect("it was read");
            assert_eq!(
                read(&written).as_ref().ok(),
                Some(&record),
                "a record is another one when it was written again"
            );
            assert_eq!(repeatable_op(&written).is_some(), op.is_some());
            let part = &written[..usize::from(cut) % written.len()];
            let more = [&written[..], &[longer]].concat();
            for other in [part, &more] {
                let told = read(other);
                assert!(matches!(told, Err(StoreError::Corrupt { .. })), "{other:?} was read as {told:?}");
            }
        }
        Err(error) => assert!(matches!(error, StoreError::Corrupt { .. }), "{error}"),
    }
    if let Ok(number) = decode_number(b"fuzzed", &bytes) {
        assert_eq!(encode_number(number), bytes[..]);
    }
    if let Ok((tree, lsn)) = decode_place(OpId(7), &bytes) {
        assert_eq!(encode_place(tree, lsn), bytes[..]);
    }
    Ok(())
}
