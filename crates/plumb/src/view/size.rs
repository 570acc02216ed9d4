//! Bytes and seconds as people read them.

/// `3.4 MiB`, with three figures.
pub fn bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut value, mut unit) = (bytes, 0);
    while value.abs() >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if unit == 0 || value.abs() >= 100.0 { 0 } else { 1 };
    format!("{value:.decimals$} {}", units[unit])
}

/// `45 s`, `12 min`, `3.5 h`, `20 days`.
pub fn time(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn figures() {
        assert_eq!(super::bytes(512.0), "512 B");
        assert_eq!(super::bytes(3.5 * 1048576.0), "3.5 MiB");
        assert_eq!(super::bytes(-2048.0), "-2.0 KiB");
        assert_eq!(super::time(90.0), "90 s");
        assert_eq!(super::time(7200.0), "2.0 h");
    }
}
