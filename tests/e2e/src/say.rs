//! Lines for people on standard output.

/// Writes one line to standard output, at once.
pub fn say(line: impl AsRef<str>) {
    #[expect(
        clippy::print_stdout,
        reason = "the demo and the tables talk to the person who ran them"
    )]
    {
        println!("{}", line.as_ref());
    }
}
