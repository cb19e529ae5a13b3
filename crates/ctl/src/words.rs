//! Moments, lengths of time and foreign text as an operator reads them. Pure.

use groundcrew_protocol::time::WallMs;

/// A length of time in its two largest units; under ten seconds with a tenth.
pub(crate) fn span(span_ms: i64) -> String {
    let span_ms = span_ms.max(0);
    let seconds = span_ms / 1000;
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, 0..=9) => format!("{seconds}.{} s", span_ms % 1000 / 100),
        (0, 0, 0, _) => format!("{seconds} s"),
        (0, 0, minutes, 0) => format!("{minutes} min"),
        (0, 0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (0, hours, 0, _) => format!("{hours} h"),
        (0, hours, minutes, _) => format!("{hours} h {minutes} min"),
        (days, 0, _, _) => format!("{days} d"),
        (days, hours, _, _) => format!("{days} d {hours} h"),
    }
}

/// How long ago something was.
pub(crate) fn ago(then: WallMs, now: WallMs) -> String {
    let passed = now.0.saturating_sub(then.0);
    if passed < 1_000 { "just now".to_owned() } else { format!("{} ago", whole_span(passed)) }
}

/// How old something is, in its largest unit.
pub(crate) fn age(then: WallMs, now: WallMs) -> String {
    let text = whole_span(now.0.saturating_sub(then.0));
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// How far away a moment is: `in 5 min`, or `since 5 min` once it has passed.
pub(crate) fn ahead(then: WallMs, now: WallMs) -> String {
    let left = then.0.saturating_sub(now.0);
    if left >= 0 { format!("in {}", whole_span(left)) } else { format!("{} ago", whole_span(-left)) }
}

/// As [`span`], without tenths: those of an age are noise.
fn whole_span(span_ms: i64) -> String {
    let text = span(span_ms);
    match text.split_once('.') {
        Some((seconds, _)) => format!("{seconds} s"),
        None => text,
    }
}

/// A moment in UTC: the time of day, and the date where it is another than today.
pub(crate) fn moment(at: WallMs, now: WallMs) -> String {
    let stamp = jiff::Timestamp::from_millisecond(at.0);
    let today = jiff::Timestamp::from_millisecond(now.0).map(|now| now.strftime("%F").to_string());
    match (stamp, today) {
        (Ok(stamp), Ok(today)) if stamp.strftime("%F").to_string() == today => {
            stamp.strftime("%H:%M:%S UTC").to_string()
        }
        (Ok(stamp), _) => stamp.strftime("%F %H:%M UTC").to_string(),
        (Err(_), _) => at.to_string(),
    }
}

/// The time of day to the second, for lines that follow each other.
pub(crate) fn clock(at: WallMs) -> String {
    match jiff::Timestamp::from_millisecond(at.0) {
        Ok(stamp) => stamp.strftime("%H:%M:%S").to_string(),
        Err(_) => at.to_string(),
    }
}

/// This moment. Only for people: what is old and what is due is the orchestrator's to say.
pub(crate) fn now() -> WallMs {
    WallMs(jiff::Timestamp::now().as_millisecond())
}

/// One line without control characters, and without those that turn the direction of writing: what a machine sent must
/// not steer the terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|letter| if is_steering(letter) { ' ' } else { letter }).collect()
}

fn is_steering(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A sentence of somebody else's, cleaned, with a full stop.
pub(crate) fn sentence(text: &str) -> String {
    let text = clean(text);
    let text = text.trim();
    let mut letters = text.chars();
    let capital: String = letters.next().map(|first| first.to_uppercase().collect()).unwrap_or_default();
    let stop = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{capital}{}{stop}", letters.as_str())
}

/// A line as several of at most `width` characters; those after the first are indented.
pub(crate) fn wrapped(line: &str, width: usize) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in line.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            text.push_str("\n ");
            column = 1;
        }
        if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text + "\n"
}

/// At most `width` characters; where some are left out, the last one is an ellipsis.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_read_well() {
        assert_eq!(age(WallMs(0), WallMs(90_000)), "1 min");
        for (ms, text) in [
            (-5, "0.0 s"),
            (1_250, "1.2 s"),
            (59_999, "59 s"),
            (60_000, "1 min"),
            (61_000, "1 min 1 s"),
            (3_723_000, "1 h 2 min"),
            (7_200_000, "2 h"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(span(ms), text);
        }
        assert_eq!(ago(WallMs(1_000), WallMs(6_500)), "5 s ago");
        assert_eq!(ago(WallMs(1_000), WallMs(1_200)), "just now");
        assert_eq!(ago(WallMs(9_000), WallMs(1_200)), "just now");
        assert_eq!(ahead(WallMs(61_000), WallMs(1_000)), "in 1 min");
        assert_eq!(ahead(WallMs(1_000), WallMs(61_000)), "1 min ago");
    }

    #[test]
    fn lines_are_wrapped_and_cut_between_characters() {
        assert_eq!(wrapped("a bb ccc", 80), "a bb ccc\n");
        assert_eq!(wrapped("aa bb cc dd", 6), "aa bb\n  cc\n  dd\n");
        assert_eq!(wrapped("loooooong é", 4), "loooooong\n  é\n");
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
    }

    #[test]
    fn a_moment_has_a_date_only_on_another_day() {
        let noon = WallMs(1_700_000_000_000);
        assert_eq!(moment(noon, noon.plus(1_000)), "22:13:20 UTC");
        assert_eq!(moment(noon, noon.plus(86_400_000)), "2023-11-14 22:13 UTC");
        assert_eq!(moment(WallMs(i64::MAX), noon), format!("{} ms", i64::MAX));
    }

    #[test]
    fn foreign_text_steers_nothing_and_ends_in_a_stop() {
        assert_eq!(clean("a\x1b[2Jb\u{202e}\n"), "a [2Jb  ");
        assert_eq!(sentence("stage X failed"), "Stage X failed.");
        assert_eq!(sentence("änd. "), "Änd.");
        assert_eq!(sentence(""), ".");
    }
}
