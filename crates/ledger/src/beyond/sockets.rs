//! What waits in a process's sockets, as its network namespace lists it.

use std::collections::HashSet;

use plumb_target::Process;

use super::unix;

/// Bytes in the send and receive queues of TCP and UDP, and memory of what waits in unix sockets.
/// `None` where none of it can be read; what cannot be is noted.
pub(super) fn queued(process: &Process, inodes: &[u64], notes: &mut Vec<String>) -> Option<u64> {
    if inodes.is_empty() {
        return Some(0);
    }
    let wanted: HashSet<u64> = inodes.iter().copied().collect();
    let unix = unix::queued(process, &wanted)
        .map_err(|error| {
            notes.push(format!("what waits in its unix sockets cannot be seen: {error}"));
        })
        .ok();
    ["net/tcp", "net/tcp6", "net/udp", "net/udp6"]
        .into_iter()
        .filter_map(|name| process.read(name).ok())
        .map(|text| {
            let text = String::from_utf8_lossy(&text);
            text.lines().skip(1).filter_map(|line| queue(line, &wanted)).sum()
        })
        .chain(unix)
        .reduce(|a: u64, b| a + b)
}

/// `sl local remote st tx_queue:rx_queue tr:when retrnsmt uid timeout inode …`, queues in hex.
fn queue(line: &str, wanted: &HashSet<u64>) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let inode = fields.get(9)?.parse().ok()?;
    // A listening socket's receive queue counts connections, not bytes.
    if !wanted.contains(&inode) || fields.get(3) == Some(&"0A") {
        return None;
    }
    let (tx, rx) = fields.get(4)?.split_once(':')?;
    Some(u64::from_str_radix(tx, 16).ok()? + u64::from_str_radix(rx, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_of_wanted_sockets_only() {
        let wanted = HashSet::from([77]);
        let line = |st, inode| {
            format!(
                "   0: 0100007F:1F90 00000000:0000 {st} 00000010:00000100 00:0 0 0 0 {inode} 1 0"
            )
        };
        assert_eq!(queue(&line("01", 77), &wanted), Some(0x110));
        assert_eq!(queue(&line("01", 78), &wanted), None);
        assert_eq!(queue(&line("0A", 77), &wanted), None);
    }
}
