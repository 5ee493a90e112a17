//! BLAKE3 of members. The data of a large member is hashed in pieces, in any
//! order and by any thread; the pieces are subtrees of BLAKE3's own tree, so the
//! result is what `b3sum` prints.

use blake3::Hasher;
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};

/// Length of all pieces but the last. A subtree of BLAKE3 must be a power of two.
pub(crate) const PIECE_BYTES: u64 = 512 << 10;
/// How much of the hash of a member's head and padding is kept.
pub(crate) const HEAD_HASH_BYTES: usize = 8;

pub(crate) type DataHash = [u8; 32];
pub(crate) type HeadHash = [u8; HEAD_HASH_BYTES];

/// Number of pieces of a member with `data_bytes` of data.
pub(crate) fn piece_count(data_bytes: u64) -> u64 {
    data_bytes.div_ceil(PIECE_BYTES)
}

/// Length of a piece of a member with `data_bytes` of data.
pub(crate) fn piece_bytes(data_bytes: u64, number: u64) -> u64 {
    (data_bytes - number * PIECE_BYTES).min(PIECE_BYTES)
}

/// Hashes one piece of `data_bytes` of data. If it is the only one, this is the
/// hash of the data.
pub(crate) fn hash_piece(piece: &[u8], number: u64, data_bytes: u64) -> DataHash {
    let mut hasher = Hasher::new();
    if piece_count(data_bytes) <= 1 {
        return hasher.update(piece).finalize().into();
    }
    hasher.set_input_offset(number * PIECE_BYTES);
    hasher.update(piece).finalize_non_root()
}

/// The hash of data from those of its pieces, of which there is at least one.
pub(crate) fn join_pieces(pieces: &[DataHash]) -> DataHash {
    match split(pieces) {
        None => pieces[0],
        Some((left, right)) => {
            merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).into()
        }
    }
}

fn subtree(pieces: &[DataHash]) -> ChainingValue {
    match split(pieces) {
        None => pieces[0],
        Some((left, right)) => merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash),
    }
}

/// Splits pieces as BLAKE3 splits the data: the left part is the largest power of
/// two that leaves something for the right one.
fn split(pieces: &[DataHash]) -> Option<(&[DataHash], &[DataHash])> {
    let count = pieces.len();
    (count > 1).then(|| pieces.split_at(count.next_power_of_two() / 2))
}

/// Hashes the head and the padding of a member.
pub(crate) fn hash_head(head: &[u8], padding: &[u8]) -> HeadHash {
    let hash = Hasher::new().update(head).update(padding).finalize();
    shortened(hash.as_bytes())
}

/// The part of a hash that is kept of heads.
pub(crate) fn shortened(hash: &[u8; 32]) -> HeadHash {
    let mut head = [0; HEAD_HASH_BYTES];
    head.copy_from_slice(&hash[..HEAD_HASH_BYTES]);
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_hash_of_the_whole() {
        // A member without data may have headers that are read like a large one.
        assert_eq!(hash_piece(b"", 0, 0), *blake3::hash(b"").as_bytes());
        let piece = PIECE_BYTES as usize;
        let lengths = [
            1,
            1024,
            piece - 1,
            piece,
            piece + 1,
            2 * piece,
            3 * piece,
            4 * piece,
            5 * piece + 1025,
            7 * piece + 7,
            8 * piece,
        ];
        let data: Vec<u8> = (0..8 * piece).map(|at| (at % 251) as u8).collect();
        for length in lengths {
            let data = &data[..length];
            let pieces = data.chunks(piece).enumerate();
            let pieces = pieces.map(|(n, part)| {
                assert_eq!(piece_bytes(length as u64, n as u64), part.len() as u64);
                hash_piece(part, n as u64, length as u64)
            });
            let pieces: Vec<DataHash> = pieces.collect();
            assert_eq!(piece_count(length as u64), pieces.len() as u64);
            assert_eq!(join_pieces(&pieces), *blake3::hash(data).as_bytes());
            // The control: the order of the pieces matters.
            let reversed: Vec<DataHash> = pieces.iter().rev().copied().collect();
            assert_eq!(
                join_pieces(&reversed) == join_pieces(&pieces),
                pieces.len() == 1
            );
        }
    }
}
