//! What two runs do not have in common, in words: the options that differ, with both values.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value};

/// What decides a number, by the end of its place in the first line of a journal: its name for a reader, and its unit.
const NAMES: [(&str, &str, &str); 37] = [
    ("latency_ms", "--budget", " ms"),
    ("energy_mj", "--energy-budget", " mJ"),
    ("limits.macs", "--max-macs", ""),
    ("limits.params", "--max-params", ""),
    ("memory_bytes", "--max-memory", " bytes"),
    ("objective", "--objective", ""),
    ("evaluations", "--evaluations", ""),
    ("population", "--population", ""),
    ("parents", "--parents", ""),
    ("mutation", "--mutation", ""),
    ("finalists", "--finalists", ""),
    ("min_time", "--min-time", ""),
    ("min_runs", "--min-runs", ""),
    ("warmup", "--warm-up", ""),
    ("search.table", "latency table (--latency)", ""),
    ("search.among", "networks (--paths)", ""),
    ("reference.paths", "--reference-paths", ""),
    ("reference.seed", "--reference-seed", ""),
    ("seed", "--seed", ""),
    ("mc_batches", "--mc-batches", ""),
    ("mc_images", "--mc-images", ""),
    ("conditions.batch", "--batch", ""),
    ("conditions.threads", "--threads", ""),
    ("conditions.bundle", "bundle (--bundle)", ""),
    ("conditions.onnxruntime", "ONNX Runtime", ""),
    ("batch", "--batch", ""),
    ("recalibrate", "--recalibrate", ""),
    ("validation_images", "--validation-images", ""),
    ("bundle", "bundle (--bundle)", ""),
    ("parameters", "parameters (--checkpoint)", ""),
    ("data", "images (--data)", ""),
    ("provider", "--provider", ""),
    ("precision", "--precision", ""),
    ("onnxruntime", "ONNX Runtime", ""),
    ("indicators", "--indicators", ""),
    ("adapt.steps", "--adapt-steps", ""),
    ("adapt.rate", "--adapt-rate", ""),
];
/// What follows from options, and is not one.
const DERIVED: [&str; 2] = ["plan.free", "plan.replacements"];

/// What differs between two first lines, by name; none if one is no object.
pub fn between(then: &str, now: &str) -> Option<String> {
    let read = |text| serde_json::from_str::<Map<String, Value>>(text).ok().map(Value::Object);
    let (then, now) = (leaves(&read(then)?), leaves(&read(now)?));
    let places = now.keys().chain(then.keys().filter(|place| !now.contains_key(*place)));
    let differing: Vec<&String> = places.filter(|place| then.get(*place) != now.get(*place)).collect();
    let mut said: Vec<String> = Vec::new();
    let told = differing.iter().filter(|place| !DERIVED.iter().any(|derived| ends(place, derived)));
    for place in told {
        let words = one(place, then.get(*place), now.get(*place));
        // One option may decide several numbers.
        if !said.contains(&words) {
            said.push(words);
        }
    }
    Some(match (said.is_empty(), differing.is_empty()) {
        (false, _) => said.join("; "),
        (true, false) => "what follows from its options".to_owned(),
        (true, true) => "numbers in their last digits".to_owned(),
    })
}

/// A difference in words.
fn one(place: &str, then: Option<&Value>, now: Option<&Value>) -> String {
    let known = NAMES.iter().find(|(end, ..)| ends(place, end));
    let own = place.rsplit('.').next().unwrap_or(place).replace('_', " ");
    let (name, unit) = known.map_or((own.as_str(), ""), |&(_, name, unit)| (name, unit));
    match (then, now) {
        (Some(then), Some(now)) if is_digest(then) && is_digest(now) => format!("not the same {name}"),
        (then, now) => match (show(then, unit), show(now, unit)) {
            // Told apart by more digits than are shown of a number.
            (was, is) if was == is => format!("{name} was {}, is {}", whole(then), whole(now)),
            (was, is) => format!("{name} was {was}, is {is}"),
        },
    }
}

/// Whether a place is one of that end: `search.plan.seed` of `seed` and of `plan.seed`.
fn ends(place: &str, end: &str) -> bool {
    place.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn show(value: Option<&Value>, unit: &str) -> String {
    match value {
        None => "not set".to_owned(),
        Some(value) if is_digest(value) => "given".to_owned(),
        Some(Value::String(text)) => text.escape_debug().to_string(),
        Some(Value::Number(number)) => format!("{}{unit}", plain(number)),
        Some(value) => duration(value).map_or_else(|| format!("{value}{unit}"), |time| format!("{time:?}")),
    }
}

/// A value as JSON has it.
fn whole(value: Option<&Value>) -> String {
    value.map_or_else(|| "not set".to_owned(), Value::to_string)
}

/// A number as it was given: one in single precision has more digits in JSON than it was given with.
fn plain(number: &serde_json::Number) -> String {
    const SAME: f64 = 1e-12;
    let single = number.as_f64().filter(|_| number.is_f64()).map(|value| (value, value as f32));
    match single.filter(|&(value, single)| (f64::from(single) - value).abs() <= SAME * value.abs()) {
        Some((_, single)) => single.to_string(),
        None => number.to_string(),
    }
}

/// Every value that holds no others, by its place; what is null is not there.
fn leaves(value: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut left = vec![(String::new(), value)];
    while let Some((place, value)) = left.pop() {
        let below = |name: &str| if place.is_empty() { name.to_owned() } else { format!("{place}.{name}") };
        match value {
            Value::Object(object) if duration(value).is_none() => {
                left.extend(object.iter().map(|(name, value)| (below(name), value)));
            }
            Value::Array(list) => {
                left.extend(list.iter().enumerate().map(|(i, value)| (below(&i.to_string()), value)));
            }
            Value::Null => {}
            _ => {
                found.insert(place, value.clone());
            }
        }
    }
    found
}

/// A time, as serde writes one.
fn duration(value: &Value) -> Option<Duration> {
    let object = value.as_object().filter(|object| object.len() == 2)?;
    let nanos = u32::try_from(object.get("nanos")?.as_u64()?).ok().filter(|&nanos| nanos < 1_000_000_000)?;
    Some(Duration::new(object.get("secs")?.as_u64()?, nanos))
}

/// Whether a value is a SHA-256 in hexadecimal, which tells nobody anything.
fn is_digest(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn said(then: &Value, now: &Value) -> String {
        between(&then.to_string(), &now.to_string()).unwrap()
    }

    #[test]
    fn options_are_named_with_both_values_and_no_json_is_shown() {
        let run = |budget: f64, ms: u64, energy: Option<f64>, free: bool| {
            json!({ "objective": "composite", "search": {
                "plan": { "budget": { "latency_ms": budget, "energy_mj": energy }, "free": free, "seed": 0 },
                "limits": { "latency_ms": budget, "energy_mj": energy, "macs": null },
                "min_time": Duration::from_millis(ms), "table": "a".repeat(64), "among": null,
            } })
        };
        let first = run(8.0, 1000, None, true);
        // Once, though two numbers depend on it.
        assert_eq!(said(&first, &run(9.5, 1000, None, true)), "--budget was 8 ms, is 9.5 ms");
        assert_eq!(said(&first, &run(8.0, 40, None, true)), "--min-time was 1s, is 40ms");
        assert_eq!(said(&first, &run(8.0, 1000, Some(2.5), true)), "--energy-budget was not set, is 2.5 mJ");
        let mut other = run(8.0, 1000, None, false);
        other["objective"] = "loss".into();
        assert_eq!(said(&first, &other), "--objective was composite, is loss");
        other = first.clone();
        other["search"]["table"] = "b".repeat(64).into();
        other["search"]["among"] = "c".repeat(64).into();
        let words = said(&first, &other);
        assert_eq!(words, "networks (--paths) was not set, is given; not the same latency table (--latency)");
        assert!(!words.contains(['{', '"']));
    }

    #[test]
    fn names_of_one_end_are_told_apart_and_others_are_their_own() {
        let then = json!({ "reference": { "seed": 1, "paths": 64 }, "seed": 1, "fancy_thing": [1, { "x": 2 }] });
        let now = json!({ "reference": { "seed": 2, "paths": 64 }, "seed": 3, "fancy_thing": [1, { "x": 4 }] });
        assert_eq!(said(&then, &now), "x was 2, is 4; --reference-seed was 1, is 2; --seed was 1, is 3");
        assert_eq!(said(&then, &then), "numbers in their last digits");
        assert_eq!(said(&json!({ "plan": { "free": true } }), &json!({})), "what follows from its options");
        assert_eq!(between("hello", "{}"), None);
    }
}
