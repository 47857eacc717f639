//! Every label file in config/labels loads and says what it is meant to.

use std::path::Path;
use std::time::Duration;

use gstxclip::model::labels::Labels;
use gstxclip::model::{Heads, Model};

fn read(name: &str) -> Labels {
    Labels::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config/labels").join(name)).unwrap()
}

#[test]
fn every_example_loads_and_survives_its_own_json_and_yaml() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/labels");
    let mut count = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let mut labels = Labels::read(&file.unwrap().path()).unwrap();
        labels.temperature = Some(1.3);
        assert_eq!(Labels::parse_yaml("its own YAML", &labels.to_yaml()).unwrap(), labels);
        assert!(labels.labels.len() >= 5);
        assert_eq!(Labels::parse(&labels.to_json()).unwrap().labels, labels.labels);
        count += 1;
    }
    assert!(count >= 3);
}

#[test]
fn surveillance_thresholds_and_times_are_read_with_their_units() {
    let labels = read("surveillance.yaml");
    assert_eq!(labels.background.len(), 8);
    let fence = &labels.labels[0];
    assert_eq!((fence.name.as_str(), fence.prompts.len()), ("climbing a fence", 3));
    assert_eq!((fence.gate.onset, fence.gate.offset), (Some(0.9), Some(0.5)));
    assert_eq!(fence.gate.min_duration_on, Some(Duration::from_secs(1)));
    assert_eq!(fence.gate.cooldown, Some(Duration::from_secs(120)));
    assert_eq!(fence.severity.as_deref(), Some("alert"));
    assert_eq!(fence.metadata["reason"], "perimeter");
}

#[test]
fn the_demo_example_stays_inside_the_demo_models_vocabulary() {
    let model = Model::open("demo", Heads::Hf).unwrap();
    for label in read("demo.yaml").labels {
        for prompt in label.prompts.iter().chain([&label.name]) {
            model.tokenizer.encode(prompt).unwrap();
            assert_eq!(model.tokenizer.unknown_words(prompt), Vec::<String>::new(), "{prompt}");
        }
    }
}

#[test]
fn a_temperature_out_of_range_is_refused_with_its_place() {
    for wrong in ["0", "-1", "1e9", ".nan", "warm"] {
        let fault =
            Labels::parse_yaml("f.yaml", &format!("labels: {{a: }}\ntemperature: {wrong}\n")).unwrap_err();
        assert!(fault.to_string().contains("f.yaml") && fault.to_string().contains("line 2"), "{fault}");
    }
}
