//! Opening: what the log has beyond the index, what of it is known to be on disk, and what is damaged.
//!
//! Each segment says where the one before ends, and each batch up to where its segment had been flushed. So only the last batch of the last
//! segment is open to doubt: it was torn, or it is whole and lies in the system's memory alone, because the process was killed before its flush
//! or because the flush failed. Whatever of it is whole is written again, to a new segment, which says that the old one ends before it, and how
//! many records it begins with for that: until it has them all, it counts for nothing.
//!
//! Anything else that cannot be read as it was written is damage.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use nexus_kernel::hal::StoreError;

use super::index::Index;
use super::record::{Kind, Record, SegmentHeader, size};
use super::run::{Place, Through};
use super::segment::{self, ALIGN};
use super::store::Log;
use crate::disk::{DiskFile, Folder};

/// A part of a segment that is not as it was written. Which blobs were in it is not known; those that the index knows are told when they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    pub segment: String,
    /// The bytes.
    pub bytes: Range<u64>,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from byte {} to {}", self.segment, self.bytes.start, self.bytes.end)
    }
}

/// What was found.
pub(super) struct Found {
    pub(super) log: Log,
    pub(super) damage: Vec<Damage>,
    /// What is whole, and may not be on disk.
    pub(super) unproven: Vec<(Record, Bytes)>,
}

struct Segment {
    header: SegmentHeader,
    file: Arc<dyn DiskFile>,
}

/// Brings the index up to the end of the log. Keeps no more than about `unwritten_max` entries of it in memory.
pub(super) fn recover(
    folder: &dyn Folder,
    names: &[String],
    index: &Index,
    unwritten_max: usize,
) -> Result<Found, StoreError> {
    let failed = |e| StoreError::io("opening packed blobs", e);
    let through = index.through();
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment::number(name)).collect();
    numbers.sort_unstable();
    let mut found = Found {
        log: Log::after(numbers.last().copied().unwrap_or_default().max(through.segment)),
        damage: Vec::new(),
        unproven: Vec::new(),
    };
    let mut segments = Vec::new();
    let mut headless = Vec::new();
    for number in numbers.into_iter().filter(|number| *number >= through.segment) {
        let file = folder.open(&segment::name(number), false).map_err(failed)?;
        match segment::header(&*file).map_err(failed)?.filter(|header| header.number == number) {
            Some(header) => segments.push(Segment { header, file }),
            None => headless.push((number, file.len().map_err(failed)?)),
        }
    }
    while let Some(last) = segments.last()
        && !last.is_complete()?
    {
        segments.pop();
    }
    drop_void(&mut segments, &mut headless);
    // A last one without a header was never flushed.
    let last = segments.last().map_or(through.segment, |last| last.header.number);
    for (number, len) in headless.into_iter().filter(|(number, _)| *number <= last) {
        found.damage.push(Damage { segment: segment::name(number), bytes: 0..len });
    }
    if through.segment != 0 && segments.first().is_none_or(|first| first.header.number > through.segment) {
        found.damage.push(Damage { segment: segment::name(through.segment), bytes: 0..through.offset });
    }
    found.log.last = through;
    for (at, segment) in segments.iter().enumerate() {
        let from = if segment.header.number == through.segment { through.offset } else { ALIGN };
        let next = segments.get(at + 1).map(|next| next.header);
        let declared =
            next.filter(|next| next.previous == segment.header.number).map(|next| next.previous_end);
        let end = match declared {
            Some(end) => end,
            None => segment::proven(&*segment.file, &segment.header.salt, from)?,
        };
        segment.learn(from, end, index, unwritten_max, &mut found.damage)?;
        match (declared, next) {
            (Some(_), _) => {}
            (None, None) => found.unproven.extend(segment.whole(end)?),
            // The one that said where it ends was compacted away: it had been flushed before that one was begun.
            (None, Some(_)) => segment.learn(end, u64::MAX, index, unwritten_max, &mut Vec::new())?,
        }
        // One in which nothing is known to be on disk is as if it had never been begun: the next one tells nothing of it.
        if end > ALIGN {
            found.log.last = Through { segment: segment.header.number, offset: end };
        }
    }
    Ok(found)
}

/// Leaves out the segments that were begun and given up: those between one and the one that it says was before it.
fn drop_void(segments: &mut Vec<Segment>, headless: &mut Vec<(u64, u64)>) {
    let gaps: Vec<Range<u64>> =
        segments.iter().map(|segment| segment.header.previous + 1..segment.header.number).collect();
    // From the last one down: what is void says nothing of others.
    let mut kept_from = u64::MAX;
    let mut void = Vec::new();
    for gap in gaps.into_iter().rev() {
        if gap.end < kept_from {
            kept_from = gap.start;
            void.push(gap);
        }
    }
    let is_void = |number: u64| void.iter().any(|gap| gap.contains(&number));
    segments.retain(|segment| !is_void(segment.header.number));
    headless.retain(|(number, _)| !is_void(*number));
}

impl Segment {
    /// Whether it has all that was to be copied into it. If not, its store was not opened with it, and what was to be copied is where it was.
    fn is_complete(&self) -> Result<bool, StoreError> {
        if self.header.copied == 0 || segment::proven(&*self.file, &self.header.salt, ALIGN)? > ALIGN {
            return Ok(true);
        }
        Ok(self.whole(ALIGN)?.len() as u64 >= self.header.copied)
    }

    fn learn(
        &self,
        from: u64,
        to: u64,
        index: &Index,
        unwritten_max: usize,
        damage: &mut Vec<Damage>,
    ) -> Result<(), StoreError> {
        let number = self.header.number;
        let damaged = segment::walk(&*self.file, &self.header.salt, from, to, |offset, record| {
            if record.kind == Kind::Flushed {
                return Ok(());
            }
            // Segments are far shorter than what 32 bits can say.
            let short = u32::try_from(offset).unwrap_or(u32::MAX);
            let place = Place { segment: number, offset: short, len: record.len };
            let through = Through { segment: number, offset: offset + size(&record.key, record.len) };
            index.learn([(record.key, (record.kind == Kind::Blob).then_some(place))], through);
            if index.unwritten() >= unwritten_max { index.write() } else { Ok(()) }
        })?;
        damage.extend(damaged.into_iter().map(|bytes| Damage { segment: segment::name(number), bytes }));
        Ok(())
    }

    /// The records from `from` on whose content is whole.
    fn whole(&self, from: u64) -> Result<Vec<(Record, Bytes)>, StoreError> {
        let mut whole = Vec::new();
        segment::walk(&*self.file, &self.header.salt, from, u64::MAX, |offset, record| {
            if record.kind == Kind::Flushed {
                return Ok(());
            }
            let content = segment::content(&*self.file, &record, offset)
                .map_err(|e| StoreError::io("opening packed blobs", e))?;
            whole.extend(content.map(|content| (record, content.into())));
            Ok(())
        })?;
        Ok(whole)
    }
}
