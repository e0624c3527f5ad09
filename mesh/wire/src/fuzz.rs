//! The bodies of this crate's fuzz targets, here so that ordinary tests run them too: any bytes of a connection, in any pieces.
//!
//! Each returns what does not hold; the fuzzer and the tests panic on it. Not for use by the mesh.

use crate::{flood, lines::Lines};

/// One connection of HTTP/1.1: where its first line feed stands alone does not depend on the pieces that it comes in, nor on what comes
/// behind. The first byte says how long the pieces are.
pub fn heads(data: &[u8]) -> Result<(), String> {
    let Some((size, sent)) = data.split_first() else {
        return Ok(());
    };
    let whole = alone(sent, sent.len().max(1));
    if let Some(at) = whole {
        if sent.get(at) != Some(&b'\n') {
            return Err(format!("no line feed at {at}"));
        }
        let before = sent.get(..at).unwrap_or_default();
        if alone(before, before.len().max(1)).is_some() {
            return Err(format!("another one in front of the first at {at}"));
        }
    }
    for size in [usize::from(*size).max(1), 1] {
        let cut = alone(sent, size);
        // Of a line in pieces so much is kept: where more is needed the connection ends, at that line.
        let is_long = cut.is_some_and(|end| longest(sent, end) > crate::lines::MAX_KEPT);
        if cut != whole && !is_long {
            return Err(format!("{cut:?} in pieces of {size}, {whole:?} in one"));
        }
    }
    Ok(())
}

/// Where the first line feed is alone, with all coming in pieces of this size.
fn alone(sent: &[u8], size: usize) -> Option<usize> {
    let (mut lines, mut before) = (Lines::new(), 0);
    for piece in sent.chunks(size) {
        if let Some(at) = lines.alone(piece) {
            return Some(before + at);
        }
        before += piece.len();
    }
    None
}

/// The bytes of the line that ends there.
fn longest(sent: &[u8], end: usize) -> usize {
    let line = sent.get(..end).unwrap_or_default();
    line.iter().rev().take_while(|byte| **byte != b'\n').count()
}

/// The frames of a connection of HTTP/2: what they cost in all does not depend on the pieces that they come in, is no more than there are
/// frames to pay for, and ends the connection exactly where it is more than the allowance.
pub fn frames(data: &[u8]) -> Result<(), String> {
    let Some((size, sent)) = data.split_first() else {
        return Ok(());
    };
    let whole = flood::counted(sent, sent.len().max(1));
    for size in [usize::from(*size).max(1), 1] {
        let cut = flood::counted(sent, size);
        if cut != whole {
            return Err(format!("{cut:?} in pieces of {size}, {whole:?} in one"));
        }
    }
    let (frames, cost, is_over) = whole;
    if cost > frames.saturating_mul(flood::MOST_PER_FRAME) {
        return Err(format!("{frames} frames cost {cost}"));
    }
    if is_over != (cost > u64::from(flood::ALLOWANCE)) {
        return Err(format!("a cost of {cost} and an end: {is_over}"));
    }
    Ok(())
}
