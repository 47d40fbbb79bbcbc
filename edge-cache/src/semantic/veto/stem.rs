//! A word less its inflection, so that `deleting`, `deleted` and `deletes` are `delete`. Pure.
//!
//! Only inflection: `connection` is not `connect`, which is a matter of `words.rs`. No stem may be
//! another word's: `pipes` is never `pip`. Rather than cut every word down to what is common, as
//! stemmers for search do, an `e` that an ending swallowed is put back.

use std::{
    collections::{HashMap, HashSet},
    sync::LazyLock,
};

/// Forms that follow no rule, or a rule that would go wrong.
const IRREGULAR: &str = "\
    write wrote written
    read reads
    run ran running
    get got gotten
    set sets
    put puts
    take took taken
    make made
    give gave given
    find found
    build built
    send sent
    lose lost
    keep kept
    hold held
    mean meant
    spend spent
    throw threw thrown
    know knew
    grow grew grown
    show shown
    draw drew drawn
    choose chose chosen
    break broke broken
    freeze froze frozen
    hide hid hidden
    speak spoke spoken
    overwrite overwrote overwritten
    rewrite rewrote rewritten
    override overrode overridden
    begin began begun
    catch caught
    bring brought
    think thought
    buy bought
    tell told
    sell sold
    bind bound
    rebuild rebuilt
    go went gone
    come came
    become became
    see saw seen
    child children
    index indices indexes
    matrix matrices
    vertex vertices
    appendix appendices
    person people persons
    man men
    criterion criteria
    schema schemata
    cache caches cached caching
    status statuses
    bus buses
    alias aliases
    virus viruses
    axis axes
    analysis analyses
    hypothesis hypotheses
    parenthesis parentheses
    leaf leaves
    half halves
    query queries querying queried
    die dying died
    tie tying tied
    lie lying
    use using used uses
    queue queueing queuing queued queues
    panic panicked panicking panics
    mimic mimicked
    free freed freeing
    agree agreed agreeing
    label labelled labelling labeled labeling
    cancel cancelled cancelling canceled canceling
    signal signalled signalling
    model modelled modelling
    travel travelled travelling
    sign signed signing
    hash hashes hashed hashing
    echo echoes echoed
    canvas canvases
    lens lenses
    process processes processed processing
    focus focused focusing focuses
    db dbs
    id ids
    pr prs
    vm vms
    fn fns
    ui uis
    pc pcs";

/// Words that only look inflected.
const WHOLE: &str = "\
    string thing spring ping ring king bing sing wing bring during being nothing something \
    everything anything setting settings binding bindings padding heading headings warning \
    warnings ceiling sibling siblings pending existing remaining following leading trailing \
    missing casing sorted indeed need seed feed embed speed exceed proceed succeed bed red led \
    shed sled breed greed weed hundred sacred naked is was has as this his its us does always yes \
    perhaps across towards besides sometimes less unless plus minus bonus versus virus status \
    focus bus canvas bias alias atlas gas lens news series species css js https http dns aws ios \
    macos os sass scss tls rails pandas keras windows jenkins express redis kubernetes postgres \
    nexus prometheus axios nfs ecs rds sqs sns ses eks gcs nats nginx cors ntfs rss sms pos cms \
    dos bios chaos kudos mysql sys basis analysis axis hypothesis synthesis emphasis thesis \
    parenthesis ellipsis iris chassis numpy regex stats docs ls ps class access process address \
    success progress compress pass miss loss cross press kubectl kwargs asyncio yaml unused \
    united charles james multithreading multiprocessing celery";

/// Verbs on -e that the rules below would leave without it, as they are without it.
const LOST_E: &str = "\
    delet complet obsolet writ invit quot promot vot denot comput execut rout mut permut distribut \
    substitut attribut contribut compil fil profil scal schedul consol clon tun stor ignor restor \
    explor scor configur structur secur captur requir fir retir wir acquir inspir expir typ escap \
    shap scrap scop wip swip encod decod upgrad downgrad fad provid hid guid decid divid overrid \
    includ exclud nam renam consum resum assum tim mak tak wak invok revok lik smok pok defin \
    combin determin refin inlin outlin pipelin examin imagin compar shar prepar declar squar becom \
    welcom overwrit rewrit cit excit ignit polut postpon phon zon ston hon styl cycl recycl pil \
    til rul explod erod eras reus paus caus us enclos clos expos compos propos suppos chos disclos \
    dispos interpos releas increas decreas purchas pleas leas eas bas chas phras rephras \
    parapharas databas analyz pars revers travers dispers immers collaps els puls respons sens \
    licens dens condens ros promis rais prais precis advis revis supervis compromis otherwis \
    exercis creat recreat updat migrat generat validat iterat deprecat locat allocat truncat \
    duplicat replicat communicat authenticat indicat dedicat replac trac plac spac fac slic pric \
    danc balanc referenc dereferenc reduc produc introduc forc enforc sourc outsourc servic notic \
    practic voic invoic choic enhanc bounc debounc announc merg chang exchang purg charg rang \
    arrang manag damag packag stag imag messag pag engag averag storag leverag bridg judg nudg \
    emerg diverg converg challeng hing plung forg urg larg handl enabl disabl tabl assembl \
    disassembl bundl unbundl throttl toggl singl googl shuffl sampl coupl decoupl tripl multipl \
    rippl settl titl battl bottl doubl troubl tumbl scrambl mov remov sav serv preserv reserv \
    observ resolv solv involv receiv achiev believ retriev driv deriv arriv surviv giv liv archiv \
    hav leav wav prov improv approv lov dissolv evolv continu argu valu rescu issu queu tru glu \
    subdu parametriz";

static IRREGULAR_FORMS: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    let lines = IRREGULAR.lines().map(str::split_whitespace);
    lines
        .filter_map(|mut words| Some((words.next()?, words)))
        .flat_map(|(first, words)| words.map(move |word| (word, first)))
        .collect()
});
static WHOLE_WORDS: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| WHOLE.split_whitespace().collect());
static LOST_E_STEMS: LazyLock<HashSet<&'static str>> =
    LazyLock::new(|| LOST_E.split_whitespace().collect());

/// The uninflected form of a word in lower case, in American spelling.
pub(super) fn stem(word: &str) -> String {
    if let Some(base) = IRREGULAR_FORMS.get(word) {
        return (*base).into();
    }
    if word.len() < 4 || !word.bytes().all(|byte| byte.is_ascii_lowercase()) || is_whole(word) {
        return word.into();
    }
    let word = american(word);
    let base = plural(&word).or_else(|| verb(&word)).unwrap_or(word);
    IRREGULAR_FORMS.get(&*base).map_or_else(|| american(&base), |base| (*base).into())
}

fn is_whole(word: &str) -> bool {
    WHOLE_WORDS.contains(word)
}

/// `-ise` and its forms as `-ize`, `-our` as `-or`.
fn american(word: &str) -> String {
    const KEPT: [&str; 21] = [
        "promise",
        "exercise",
        "otherwise",
        "precise",
        "premise",
        "enterprise",
        "expertise",
        "likewise",
        "compromise",
        "concise",
        "franchise",
        "advise",
        "revise",
        "supervise",
        "raise",
        "noise",
        "disguise",
        "surprise",
        "comprise",
        "devise",
        "improvise",
    ];
    for (british, american) in [
        ("ise", "ize"),
        ("ising", "izing"),
        ("ised", "ized"),
        ("ises", "izes"),
        ("isation", "ization"),
    ] {
        let Some(root) = word.strip_suffix(british) else { continue };
        let kept = KEPT.iter().any(|kept| kept.strip_suffix("ise") == Some(root));
        if root.len() >= 4 && !kept {
            return format!("{root}{american}");
        }
    }
    for (british, american) in [
        ("haviour", "havior"),
        ("colour", "color"),
        ("avour", "avor"),
        ("analys", "analyz"),
        ("catalogue", "catalog"),
        ("centre", "center"),
        ("licence", "license"),
    ] {
        if word.contains(british) && word != "analysis" && word != "analyst" {
            return word.replacen(british, american, 1);
        }
    }
    word.into()
}

fn plural(word: &str) -> Option<String> {
    let root = word.strip_suffix('s')?;
    let last = root.as_bytes().last().copied()?;
    if matches!(last, b's' | b'u' | b'i') {
        return None;
    }
    if let Some(root) = word.strip_suffix("ies") {
        return Some(if root.len() < 2 { format!("{root}ie") } else { format!("{root}y") });
    }
    let es = word.strip_suffix("es").filter(|root| {
        ["ss", "x", "sh", "ch", "zz", "tto"].iter().any(|ending| root.ends_with(ending))
    });
    Some(es.unwrap_or(root).into())
}

fn verb(word: &str) -> Option<String> {
    let root = if let Some(root) = word.strip_suffix("ing") {
        root
    } else if let Some(root) = word.strip_suffix("ied") {
        return Some(format!("{root}y"));
    } else {
        word.strip_suffix("ed").filter(|root| !root.ends_with('e'))?
    };
    let vowel = |byte: &u8| matches!(byte, b'a' | b'e' | b'i' | b'o' | b'u' | b'y');
    if root.len() < 2 || !root.bytes().any(|byte| vowel(&byte)) {
        return None;
    }
    Some(restored(root))
}

/// The base of a verb, of what is left before its ending.
fn restored(root: &str) -> String {
    if LOST_E_STEMS.contains(root) {
        return format!("{root}e");
    }
    let bytes = root.as_bytes();
    let at = |back: usize| bytes.len().checked_sub(back).map_or(0, |at| bytes[at]);
    let vowel = |byte: u8| matches!(byte, b'a' | b'e' | b'i' | b'o' | b'u');
    // `stopp`, `submitt`, but `fill` and `pass`.
    if at(1) == at(2) && !vowel(at(1)) && !matches!(at(1), b'l' | b's' | b'f' | b'z') {
        return root[..root.len() - 1].into();
    }
    let lost = match at(1) {
        b'v' | b'u' | b'z' => true,
        b'c' => !root.ends_with("sync"),
        b'g' => matches!(at(2), b'd' | b'r') || (at(2) == b'a' && root.len() > 3),
        b'l' => matches!(at(2), b'b' | b'd' | b'g' | b'p' | b't' | b'k' | b'f' | b'c'),
        b's' => matches!(at(2), b'r' | b'n' | b'p') || (vowel(at(2)) && vowel(at(3))),
        b't' => {
            at(2) == b'a' && root.len() > 4 && !vowel(at(3)) && root != "format"
                || (at(2) == b'a' && at(3) == b'i')
                || root.ends_with("uat")
        }
        b'r' => at(2) == b'u' && root.len() > 4 && !vowel(at(3)) && root != "occur",
        _ => false,
    };
    if lost { format!("{root}e") } else { root.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inflection_goes() {
        let check = |words: &str| {
            let mut words = words.split(' ');
            let base = words.next().unwrap();
            words.for_each(|word| assert_eq!(stem(word), base, "{word}"));
        };
        check("delete deletes deleted deleting");
        check("sort sorts sorting");
        check("write writes wrote written writing");
        check("stop stops stopped stopping");
        check("install installs installed installing");
        check("scroll scrolls scrolling");
        check("cache caches cached caching");
        check("use uses used using");
        check("query queries querying");
        check("copy copies copied copying");
        check("class classes");
        check("box boxes");
        check("branch branches");
        check("key keys");
        check("database databases");
        check("configure configures configured configuring");
        check("handle handles handled handling");
        check("merge merges merged merging");
        check("change changes changed changing");
        check("parse parses parsed parsing");
        check("create creates created creating");
        check("format formats formatted formatting");
        check("repeat repeats repeated repeating");
        check("filter filters filtered filtering");
        check("debug debugs debugged debugging");
        check("resolve resolves resolved resolving");
        check("serialize serialise serialises serialised serialising serializing");
        check("rename renames renamed renaming");
        check("nest nests nested nesting");
        check("update updates updated updating");
        check("wait waits waited waiting");
        check("load loads loaded loading");
        check("close closes closed closing");
        check("fail fails failed failing");
        check("call calls called calling");
        check("test tests tested testing");
        check("sync syncs synced syncing");
    }

    #[test]
    fn what_only_looks_inflected_stays() {
        for word in "string thing redis css class status kubernetes pandas address need https \
                     alias settings windows axios os sorted"
            .split_whitespace()
        {
            assert_eq!(stem(word), word);
        }
    }

    #[test]
    fn no_stem_is_another_word() {
        let check = |one, other| assert_ne!(stem(one), stem(other));
        check("pipes", "pips");
        check("stripes", "strips");
        check("planes", "plans");
        check("fills", "files");
        check("states", "stats");
        check("using", "us");
        check("cares", "cars");
    }
}
