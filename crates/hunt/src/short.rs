//! Names of functions as they fit on a line: what a template is made of tells little.

/// Names no longer than this stay as they are.
const LONGEST: usize = 90;
/// How C++'s string is written out by its compiler.
const STRINGS: [(&str, &str); 2] = [
    (
        "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >",
        "std::string",
    ),
    ("std::basic_string<char, std::char_traits<char>, std::allocator<char> >", "std::string"),
];

/// The name with strings by their name and, where that is not enough, without what stands in its brackets.
pub fn short(name: &str) -> String {
    let mut name = name.to_owned();
    for (long, short) in STRINGS {
        name = name.replace(long, short);
    }
    if name.chars().count() <= LONGEST {
        return name;
    }
    let name = without_brackets(&name);
    if name.chars().count() <= LONGEST {
        return name;
    }
    let begin: String = name.chars().take(LONGEST - 1).collect();
    format!("{begin}…")
}

/// Without what is between `<` and `>` and between `(` and `)`, but for a type in Rust's first brackets
/// (`<T as Trait>::f`).
fn without_brackets(name: &str) -> String {
    let mut out = String::new();
    let mut open: Vec<char> = Vec::new();
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let is_first = rest.len() == name.len();
        // Of `operator<`, `operator()` and `operator->` no bracket opens or closes.
        let sign = rest.strip_prefix("operator").map(|after| {
            let sign = after.find(|c: char| !"<>-=*[]".contains(c)).unwrap_or(after.len());
            "operator".len() + if after.starts_with("()") { 2 } else { sign.min(2) }
        });
        let taken = match sign {
            Some(length) if open.is_empty() => {
                out.push_str(&rest[..length]);
                length
            }
            _ => {
                let closes = matches!((c, open.last()), ('>', Some('<')) | (')', Some('(')));
                let arrow = c == '>' && name[..name.len() - rest.len()].ends_with('-');
                match c {
                    '<' | '(' if !is_first => {
                        if open.is_empty() {
                            out.push(c);
                            out.push('…');
                        }
                        open.push(c);
                    }
                    _ if closes && !arrow => {
                        open.pop();
                        if open.is_empty() {
                            out.push(c);
                        }
                    }
                    _ if open.is_empty() => out.push(c),
                    _ => {}
                }
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_and_still_a_name() {
        let string = STRINGS[0].0;
        assert_eq!(short(&format!("keep({string} const&)")), "keep(std::string const&)");
        assert_eq!(short("pool_grow"), "pool_grow");
        let many = "int, ".repeat(30);
        let cases = [
            (
                format!("Cache<{many}>::insert<Key>(std::pair<{many}> const&)"),
                "Cache<…>::insert<…>(…)",
            ),
            (format!("Tree<{many}>::operator<(Tree<{many}> const&)"), "Tree<…>::operator<(…)"),
            (format!("Tree<{many}>::operator()(Tree<{many}>)"), "Tree<…>::operator()(…)"),
            (
                format!("<app::Store<{many}> as app::Keep>::add"),
                "<app::Store<…> as app::Keep>::add",
            ),
            (format!("run<{many} decltype (a->b)>()"), "run<…>(…)"),
        ];
        for (long, expected) in cases {
            assert_eq!(short(&long), expected);
        }
        // Whatever a target calls its functions.
        for odd in ["<>()".repeat(100), ">)<(".repeat(100), "operator".repeat(50), "é<".repeat(99)]
        {
            assert!(short(&odd).chars().count() <= LONGEST, "{odd}");
        }
    }
}
