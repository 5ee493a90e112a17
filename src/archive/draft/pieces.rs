//! In which files an archive is that has not been put together yet. Pure.

use std::ops::Range;

use crate::archive::write::kept::Kept;

/// A stretch of an archive, and the file that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) file: usize,
    /// From where in the file it comes to where in the archive.
    pub(crate) kept: Kept,
}

impl Piece {
    /// A file that has part of the archive at its place.
    pub(crate) fn at_its_place(file: usize, range: &Range<u64>) -> Piece {
        let kept = Kept {
            old: range.start,
            new: range.start,
            bytes: range.end - range.start,
        };
        Piece { file, kept }
    }
}

/// Where the files have what is `kept` of an archive of which they have all
/// `pieces`. Those are ascending.
pub(crate) fn locate(pieces: &[Piece], kept: &[Kept]) -> Vec<Piece> {
    let located = kept.iter().flat_map(|kept| {
        let end = kept.old + kept.bytes;
        let first = pieces.partition_point(|piece| piece.kept.new + piece.kept.bytes <= kept.old);
        let overlapping = pieces[first..].iter();
        let overlapping = overlapping.take_while(move |piece| piece.kept.new < end);
        overlapping.map(move |piece| {
            let start = kept.old.max(piece.kept.new);
            let end = end.min(piece.kept.new + piece.kept.bytes);
            let mut part = piece.kept.part(start..end);
            part.new = kept.new + (start - kept.old);
            Piece {
                file: piece.file,
                kept: part,
            }
        })
    });
    joined(located)
}

/// Neighbours in one file as one.
pub(crate) fn joined(pieces: impl IntoIterator<Item = Piece>) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match joined.last_mut() {
            Some(last) if last.file == piece.file && last.kept.is_followed_by(&piece.kept) => {
                last.kept.bytes += piece.kept.bytes;
            }
            _ => joined.push(piece),
        }
    }
    joined
}

/// How much of the archive a file has.
pub(crate) fn bytes_in(pieces: &[Piece], file: usize) -> u64 {
    let own = pieces.iter().filter(|piece| piece.file == file);
    own.map(|piece| piece.kept.bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(file: usize, old: u64, new: u64, bytes: u64) -> Piece {
        let kept = Kept { old, new, bytes };
        Piece { file, kept }
    }

    #[test]
    fn what_stays_is_found_in_the_files_that_have_it() {
        let pieces = [
            piece(0, 100, 100, 50),
            piece(1, 150, 150, 30),
            piece(0, 500, 180, 20),
        ];
        let kept = |old, new, bytes| Kept { old, new, bytes };
        let cases: [(Kept, &[Piece]); 4] = [
            (kept(110, 10, 20), &[piece(0, 110, 10, 20)]),
            (
                kept(140, 240, 55),
                &[
                    piece(0, 140, 240, 10),
                    piece(1, 150, 250, 30),
                    piece(0, 500, 280, 15),
                ],
            ),
            (kept(150, 150, 30), &[piece(1, 150, 150, 30)]),
            (kept(199, 0, 1), &[piece(0, 519, 0, 1)]),
        ];
        for (kept, expected) in cases {
            assert_eq!(locate(&pieces, &[kept]), expected, "{kept:?}");
        }
        // Neighbours are one.
        let halves = [kept(100, 0, 20), kept(120, 20, 20)];
        assert_eq!(locate(&pieces, &halves), [piece(0, 100, 0, 40)]);
    }
}
