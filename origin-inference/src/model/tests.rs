use super::*;

fn load(name: &str) -> Model {
    Model::load(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn mini() -> Model {
    load("models/nearhop-mini")
}

fn fim_input(prefix: &str, suffix: &str) -> Input {
    Input::Fim { prefix: prefix.into(), suffix: suffix.into() }
}

#[test]
fn both_models_of_the_tree_load() {
    assert_eq!(mini().report().name, "nearhop-mini");
    assert_eq!(load("tests/fixtures/tiny").report().name, "tiny");
}

#[test]
fn a_special_tokens_name_in_a_users_text_is_text() {
    let model = mini();
    let prompt = model.prompt(&fim_input("<|fim_middle|>", "<|endoftext|>")).unwrap();
    let specials = prompt.tokens.iter().filter(|token| **token < 8).count();
    assert_eq!(specials, 3, "only those of the layout: {:?}", prompt.tokens);
    let text = model.tokenizer.encode("<|endoftext|>");
    assert!(text.len() > 1, "{text:?}");
}

#[test]
fn tokens_become_the_same_text_again() {
    let model = mini();
    let text = "fn größe() -> u8 { /* 😀 */ 1 }\n\tπ\r\n";
    let tokens = model.tokenizer.encode(text);
    assert_eq!(model.tokenizer.decode(&tokens), text);
    let mut pieces = crate::text::Detokenizer::new(&model.tokenizer);
    let mut out: String = tokens.iter().map(|t| pieces.push(*t, &model.tokenizer)).collect();
    assert!(!out.contains('\u{FFFD}'), "half a character was given out: {out}");
    out += &pieces.finish(&model.tokenizer);
    assert_eq!(out, text);
}

#[test]
fn a_keystroke_keeps_the_start_of_a_long_prompt() {
    let model = mini();
    let code = "let value = compute(&input, 17)?;\n".repeat(200);
    let before = model.prompt(&fim_input(&code, "}\n")).unwrap();
    assert!(before.left_out > 0 && before.left_out.is_multiple_of(64), "{}", before.left_out);
    let after = model.prompt(&fim_input(&format!("{code}ret"), "}\n")).unwrap();
    let same = before.tokens.iter().zip(&after.tokens).take_while(|(a, b)| a == b).count();
    assert!(after.left_out != before.left_out || same >= before.tokens.len() - 2, "{same}");
    assert!(after.tokens.len() < model.context_length());
}

#[test]
fn chat_over_the_context_names_the_limit() {
    let long = Message { role: "user".into(), content: "word ".repeat(3000), name: None };
    let error = mini().prompt(&Input::Chat(vec![long])).unwrap_err();
    assert_eq!(error.code.as_deref(), Some("context_length_exceeded"));
    assert!(error.message.contains("1024"), "{error}");
}

#[test]
fn the_template_revision_follows_the_layout() {
    let folder = tempfile::tempdir().unwrap();
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
    for file in ["model.onnx", "tokenizer.json", "nearhop.yaml"] {
        std::fs::copy(source.join(file), folder.path().join(file)).unwrap();
    }
    let before = Model::load(folder.path()).unwrap().report();
    assert_eq!(before, Model::load(&source).unwrap().report());
    let path = folder.path().join("nearhop.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("suffix_first", "prefix_first")).unwrap();
    let after = Model::load(folder.path()).unwrap().report();
    assert_ne!(before.template, after.template);
}

#[test]
fn a_published_folder_needs_no_manifest() {
    let Some(folder) = crate::session::ort::tests::foreign("optimum") else { return };
    let model = Model::load(&folder).unwrap();
    let report = model.report();
    assert_eq!((report.name.as_str(), report.context_length), ("optimum", 256));
    assert_eq!(report.revision.len(), 12, "a digest of the weights: {}", report.revision);
    assert_eq!(model.manifest.end_tokens[0], 0);
    let fim = model.manifest.fim.as_ref().unwrap();
    assert_eq!((fim.tokens.prefix, fim.tokens.suffix, fim.tokens.middle), (1, 2, Some(3)));
    assert!(model.findings().join("\n").contains("Qwen2.5-Coder"), "{:?}", model.findings());
    let message = Message { role: "user".into(), content: "hi".into(), name: None };
    let chat = model.prompt(&Input::Chat(vec![message])).unwrap();
    let text = model.tokenizer.decode(&chat.tokens);
    assert!(text.contains("user\nhi") && text.ends_with("assistant\n"), "{text}");
    // What a folder says may be overridden, and the rest is still found.
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(&folder).unwrap().flatten() {
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let yaml = "name: ours\nfim: {tokens: {prefix: 2, suffix: 1}, order: suffix_prefix}\n";
    std::fs::write(copy.path().join("nearhop.yaml"), yaml).unwrap();
    let ours = Model::load(copy.path()).unwrap();
    assert_eq!(ours.report().name, "ours");
    assert_eq!(ours.report().revision, report.revision);
    let prompt = ours.prompt(&fim_input("a", "b")).unwrap();
    assert_eq!((prompt.tokens[0], prompt.tokens.len()), (1, 4), "{:?}", prompt.tokens);
}

#[test]
fn a_space_that_a_tokenizer_puts_before_texts_is_not_put_before_a_suffix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let json = serde_json::json!({
        "version": "1.0",
        "normalizer": {"type": "Prepend", "prepend": "_"},
        "model": {
            "type": "BPE", "merges": [], "unk_token": "?",
            "vocab": {"?": 0, "_": 1, "a": 2, "b": 3, "\u{263A}": 4},
        },
    });
    std::fs::write(&path, json.to_string()).unwrap();
    let tokenizer = Tokenizer::load(&path).unwrap();
    assert_eq!(tokenizer.encode("ab"), [1, 2, 3]);
    assert_eq!(tokenizer.encode_continued("ab"), [2, 3]);
}

/// As in Llama's tokenizers: words begin with a mark for their space, and a text's first space is
/// taken away when it is written.
fn spaced() -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let added = |id: u32, content: &str, special: bool| {
        serde_json::json!({
            "id": id, "content": content, "special": special, "normalized": false,
            "lstrip": false, "rstrip": false, "single_word": false,
        })
    };
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": [
            added(6, "<|fim_middle|>", false), added(7, "<tool_call>", false), added(8, "  ", false),
        ],
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first"},
        "decoder": {"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first"},
        "model": {
            "type": "BPE", "unk_token": "?",
            "merges": [["\u{2581}", "a"], ["\u{2581}", "\u{263A}"]],
            "vocab": {
                "?": 0, "\u{2581}": 1, "a": 2, "\u{2581}a": 3, "\u{263A}": 4, "\u{2581}\u{263A}": 5,
                "<|fim_middle|>": 6, "<tool_call>": 7, "  ": 8, "<": 9, ">": 10, "|": 11,
            },
        },
    });
    std::fs::write(&path, json.to_string()).unwrap();
    Tokenizer::load(&path).unwrap()
}

#[test]
fn an_answers_first_space_stays() {
    let tokenizer = spaced();
    let mut pieces = crate::text::Detokenizer::new(&tokenizer);
    let said: Vec<String> = [3, 2, 3].iter().map(|token| pieces.push(*token, &tokenizer)).collect();
    assert_eq!(said, [" a", "a", " a"]);
    assert_eq!((tokenizer.piece(3).as_str(), tokenizer.piece(2).as_str()), (" a", "a"));
    assert_eq!(tokenizer.decode(&[3]), "a", "alone it is a text's start");
}

#[test]
fn marks_that_a_publisher_lists_as_ordinary_tokens_are_text_in_users_text() {
    let tokenizer = spaced();
    for mark in ["<|fim_middle|>", "<tool_call>"] {
        let tokens = tokenizer.encode(mark);
        assert!(tokens.len() > 1 && !tokens.contains(&6) && !tokens.contains(&7), "{tokens:?}");
        assert!(tokenizer.special().iter().any(|name| name == mark));
        assert_eq!(tokenizer.encode_template(mark).len(), 1);
    }
    assert!(tokenizer.encode("a  a").contains(&8), "spaces are text");
    // A gap's marks are not said; a tool's are.
    assert_eq!(tokenizer.decode(&[2, 6, 7]), "a<tool_call>");
    assert_eq!(tokenizer.vocabulary(), 12);
}

#[test]
fn a_text_read_again_gives_the_same_tokens() {
    let model = mini();
    let text = "fn main() { println!(\"<|endoftext|> one, two\"); }\n".repeat(4);
    let first = model.tokenizer.encode(&text);
    assert_eq!(model.tokenizer.encode(&text), first);
    // The same text read in another way is another text.
    let as_template = model.tokenizer.encode_template(&text);
    assert!(as_template.contains(&0) && !first.contains(&0));
    assert_eq!(model.tokenizer.encode_template(&text), as_template);
    assert_eq!(model.tokenizer.encode(&text), first);
}
