//! Which release of Jetson Linux (L4T) a board runs, and the JetPack that it belongs to.

use super::files::Files;

/// Releases of Jetson Linux and their JetPack, from NVIDIA's JetPack archive
/// (<https://developer.nvidia.com/embedded/jetpack-archive>), compared with the table of `jetson_stats`
/// (`jtop/core/jetson_variables.py`). A release that is not here has no JetPack: none is guessed.
const JETPACKS: [(&str, &str); 38] = [
    ("39.2.0", "7.2"),
    ("38.4.0", "7.1"),
    ("38.2.1", "7.0"),
    ("38.2.0", "7.0"),
    ("36.5.0", "6.2.2"),
    ("36.4.4", "6.2.1"),
    ("36.4.3", "6.2"),
    ("36.4.0", "6.1"),
    ("36.3.0", "6.0"),
    ("36.2.0", "6.0 DP"),
    ("35.6.2", "5.1.5"),
    ("35.6.1", "5.1.5"),
    ("35.6.0", "5.1.4"),
    ("35.5.0", "5.1.3"),
    ("35.4.1", "5.1.2"),
    ("35.3.1", "5.1.1"),
    ("35.2.1", "5.1"),
    ("35.1.0", "5.0.2"),
    ("34.1.1", "5.0.1 DP"),
    ("34.1.0", "5.0 DP"),
    ("32.7.6", "4.6.6"),
    ("32.7.5", "4.6.5"),
    ("32.7.4", "4.6.4"),
    ("32.7.3", "4.6.3"),
    ("32.7.2", "4.6.2"),
    ("32.7.1", "4.6.1"),
    ("32.6.1", "4.6"),
    ("32.5.2", "4.5.1"),
    ("32.5.1", "4.5.1"),
    ("32.5.0", "4.5"),
    ("32.4.4", "4.4.1"),
    ("32.4.3", "4.4"),
    ("32.4.2", "4.4 DP"),
    ("32.3.1", "4.3"),
    ("32.2.3", "4.2.3"),
    ("32.2.1", "4.2.2"),
    ("32.2.0", "4.2.1"),
    ("32.1.0", "4.2"),
];

/// Where the release is written.
const RELEASE: &str = "etc/nv_tegra_release";

/// The release, `R35.4.1`.
pub(super) fn read(files: &Files<'_>) -> Option<String> {
    let text = files.text(RELEASE)?;
    let release = parse(&text);
    if release.is_none() {
        files.note(RELEASE, "does not begin like `# R35 (release), REVISION: 4.1`");
    }
    release
}

/// The release in the first line: `# R35 (release), REVISION: 4.1, GCID: ...`.
fn parse(text: &str) -> Option<String> {
    let line = text.lines().next()?;
    let (major, rest) = line.strip_prefix("# R")?.split_once(' ')?;
    let revision = rest.split_once("REVISION:")?.1.split(',').next()?.trim();
    let plain = |part: &str| (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let parts: Vec<&str> = revision.split('.').collect();
    if !plain(major) || parts.len() > 3 || !parts.iter().all(|part| plain(part)) {
        return None;
    }
    // `REVISION: 1` and `REVISION: 1.0` are the same release.
    let end = if parts.len() == 1 { ".0" } else { "" };
    Some(format!("R{major}.{revision}{end}"))
}

/// The JetPack of a release such as `R35.4.1`.
pub(super) fn jetpack(release: &str) -> Option<String> {
    let number = release.strip_prefix('R')?;
    JETPACKS.iter().find(|(known, _)| *known == number).map(|(_, jetpack)| (*jetpack).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_and_their_jetpack_is_known_or_not_guessed() {
        let cases = [
            ("# R32 (release), REVISION: 7.1, GCID: 29818004, BOARD: t210ref", "R32.7.1", Some("4.6.1")),
            ("# R35 (release), REVISION: 4.1, GCID: 33958178\n# KERNEL_VARIANT: oot\n", "R35.4.1", Some("5.1.2")),
            ("# R36 (release), REVISION: 4.0, GCID: 1", "R36.4.0", Some("6.1")),
            ("# R32 (release), REVISION: 1, GCID: 1", "R32.1.0", Some("4.2")),
            ("# R99 (release), REVISION: 1.2, GCID: 1", "R99.1.2", None),
        ];
        for (line, release, known) in cases {
            assert_eq!(parse(line).as_deref(), Some(release), "{line}");
            assert_eq!(jetpack(release).as_deref(), known, "{line}");
        }
        for rubbish in ["", "R35", "# R35 (release)", "# Rx (release), REVISION: 4.1", "# R35 (release), REVISION: a"] {
            assert_eq!(parse(rubbish), None, "{rubbish}");
        }
    }

    #[test]
    fn no_release_is_twice_in_the_table() {
        let mut releases: Vec<&str> = JETPACKS.iter().map(|(release, _)| *release).collect();
        releases.sort_unstable();
        releases.dedup();
        assert_eq!(releases.len(), JETPACKS.len());
    }
}
