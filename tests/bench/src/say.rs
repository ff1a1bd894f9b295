//! Lines for people: results on standard output, progress on standard error.

/// Writes one line to standard output, at once.
pub fn say(line: impl AsRef<str>) {
    #[expect(clippy::print_stdout, reason = "the table is what this program is for")]
    {
        println!("{}", line.as_ref());
    }
}

/// Writes one line to standard error.
pub fn progress(line: impl AsRef<str>) {
    eprintln!("    {}", line.as_ref());
}
