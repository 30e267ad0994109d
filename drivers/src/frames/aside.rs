//! What is cut off a damaged log is copied into files beside it first.

use std::sync::Arc;

use nexus_kernel::hal::StoreError;

use crate::disk::{DiskFile, Folder};

/// How much is copied at once, in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// How many copies of one part of a file there may be, each of another attempt that found something else there.
const COPIES_MAX: usize = 100;

/// Copies what stands in `file`, which is called `name`, from `from` on into a file of its own, unless that is there already, and gives the name of that file; none when
/// there is nothing but zeros. The copy is on disk on return, and its name when the folder is flushed.
pub(crate) fn set_aside(
    folder: &Arc<dyn Folder>,
    file: &dyn DiskFile,
    name: &str,
    from: u64,
) -> Result<Option<String>, StoreError> {
    let what = format!("setting aside what follows {from} in {name}");
    let failed = |e| StoreError::io(what.clone(), e);
    let end = end_of(file, from, name)?;
    if end == from {
        return Ok(None);
    }
    let names = folder.list().map_err(failed)?;
    for nth in 1..=COPIES_MAX {
        let again = if nth == 1 { String::new() } else { format!(".{nth}") };
        let aside = format!("{name}.cut-{from}{again}");
        if names.contains(&aside) {
            let there = folder.open(&aside, false).map_err(failed)?;
            if is_copy(file, from..end, &*there).map_err(failed)? {
                return Ok(Some(aside));
            }
            continue;
        }
        // Under another name until it is whole.
        let making = format!("{aside}.making");
        let copy = folder.open(&making, true).map_err(failed)?;
        copy.set_len(0).map_err(failed)?;
        let mut piece = Vec::new();
        for at in (from..end).step_by(PIECE_BYTES) {
            piece.resize(length(at, end), 0);
            file.read_at(at, &mut piece).map_err(failed)?;
            copy.write_at(at - from, &piece).map_err(failed)?;
        }
        copy.sync().map_err(failed)?;
        folder.rename(&making, &aside).map_err(failed)?;
        return Ok(Some(aside));
    }
    let cause = format!("{COPIES_MAX} copies of it are there, and each is another");
    Err(StoreError::Backend { what, cause })
}

/// How much of what lies between the two is one piece.
fn length(at: u64, end: u64) -> usize {
    usize::try_from(end - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES)
}

/// Where what stands in `file` from `from` on ends: before the zeros at its end.
pub(crate) fn end_of(file: &dyn DiskFile, from: u64, name: &str) -> Result<u64, StoreError> {
    let failed = |e| StoreError::io(format!("reading {name}"), e);
    let len = file.len().map_err(failed)?;
    let mut end = from;
    let mut piece = Vec::new();
    for at in (from..len).step_by(PIECE_BYTES) {
        piece.resize(length(at, len), 0);
        file.read_at(at, &mut piece).map_err(failed)?;
        if let Some(last) = piece.iter().rposition(|byte| *byte != 0) {
            end = at + last as u64 + 1;
        }
    }
    Ok(end)
}

/// Whether `copy` has just what stands in this part of `file`.
fn is_copy(file: &dyn DiskFile, part: std::ops::Range<u64>, copy: &dyn DiskFile) -> std::io::Result<bool> {
    if copy.len()? != part.end - part.start {
        return Ok(false);
    }
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for at in part.clone().step_by(PIECE_BYTES) {
        one.resize(length(at, part.end), 0);
        other.resize(one.len(), 0);
        file.read_at(at, &mut one)?;
        copy.read_at(at - part.start, &mut other)?;
        if one != other {
            return Ok(false);
        }
    }
    Ok(true)
}
