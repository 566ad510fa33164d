//! Names of variables: which ones are names at all, and which ones only the runner may set.

/// Variables that make a loader or an interpreter run other code than it was asked to. Search paths such as `PATH` or
/// `PYTHONPATH` are not among them: providers have good uses for those.
const RESERVED: &[&str] = &[
    "BASHOPTS",
    "BASH_ENV",
    "ENV",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "NODE_OPTIONS",
    "PERL5DB",
    "PERL5OPT",
    "PROMPT_COMMAND",
    "PS4",
    "PYTHONHOME",
    "PYTHONINSPECT",
    "PYTHONSTARTUP",
    "RUBYOPT",
    "SHELLOPTS",
    "_JAVA_OPTIONS",
];
/// Beginnings of reserved names.
const RESERVED_PREFIXES: &[&str] = &["AGENT_", "LD_", "DYLD_", "BASH_FUNC_"];
/// Whether it can be the name of a variable.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c == '=' || c.is_control() || c.is_whitespace())
}

/// Whether only the runner may set the variable.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}
