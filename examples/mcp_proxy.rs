//! An enforcement point: stands before an MCP server, asks the gate before each call of a tool, and passes on what it permits.
//!
//!     TAUTLINE_GATE_TOKEN=… cargo run --example mcp_proxy -- --agent restart-bot -- npx some-mcp-server
//!
//! The client starts this in the server's place and speaks JSON-RPC with it over standard input and output, one message a
//! line, as MCP has it. What is passed on is written anew from what was read: the server reads what was judged.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use clap::Parser;
use serde_json::{Value, json};
use tautline::gate::Client;

#[derive(Parser)]
struct Options {
    /// Id of the agent in the registry
    #[arg(long)]
    agent: String,
    /// What the server is called; resources of the calls are named by it
    #[arg(long, default_value = "")]
    server: String,
    /// Base URL of the gate. Its token is in the variable TAUTLINE_GATE_TOKEN
    #[arg(long, default_value = "http://127.0.0.1:9465")]
    url: String,
    /// Certificates that the gate is trusted by, in PEM
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Let calls through while the gate cannot be asked
    #[arg(long)]
    open: bool,
    /// The MCP server and its arguments
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    let token = std::env::var("TAUTLINE_GATE_TOKEN").ok();
    let gate = Client::new(&options.url, token.as_deref(), options.ca.as_deref())?;
    let proxy = Proxy { gate, options, looking: Mutex::default() };
    proxy.run(std::io::stdin().lock(), &Arc::new(Mutex::new(std::io::stdout())))
}

struct Proxy {
    gate: Client,
    options: Options,
    /// Tools of which the server says that they only look.
    looking: Mutex<BTreeSet<String>>,
}

impl Proxy {
    /// Passes messages on until either side has nothing more to say. Its exit code is the server's.
    fn run<W: Write + Send + 'static>(self, input: impl BufRead, output: &Arc<Mutex<W>>) -> Result<ExitCode> {
        let (program, arguments) = self.options.command.split_first().context("no MCP server is named")?;
        let mut server = Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let server = server.as_mut().map_err(|error| anyhow::anyhow!("cannot start `{program}`: {error}"))?;
        let mut to_server = server.stdin.take().context("the server has no standard input")?;
        let from_server = BufReader::new(server.stdout.take().context("the server has no standard output")?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let proxy = Arc::new(self);
        let back = {
            let (proxy, output) = (Arc::clone(&proxy), Arc::clone(output));
            thread::spawn(move || proxy.pass_back(from_server, &output))
        };
        for line in input.lines() {
            let line = line.context("the client")?;
            if let Some(answer) = proxy.hear(&line, &mut to_server, &runtime)? {
                say(&mut *output.lock().unwrap_or_else(PoisonError::into_inner), &answer)?;
            }
        }
        drop(to_server);
        let status = server.wait()?;
        back.join().map_err(|_| anyhow::anyhow!("the server's answers could not be passed on"))??;
        Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Takes a message of the client: to the server it goes, or an answer comes back.
    fn hear(&self, line: &str, to_server: &mut ChildStdin, runtime: &tokio::runtime::Runtime) -> Result<Option<Value>> {
        if line.trim().is_empty() {
            return Ok(None);
        }
        let Ok(message @ Value::Object(_)) = serde_json::from_str::<Value>(line) else {
            // MCP has no batches (since 2025-06-18), and what is no message may be one to the server.
            let error = json!({ "code": -32700, "message": "not one JSON-RPC message" });
            return Ok(Some(json!({ "jsonrpc": "2.0", "id": null, "error": error })));
        };
        let objection = match message.get("method").and_then(Value::as_str) {
            Some("tools/call") => self.object(&message, runtime),
            _ => None,
        };
        match objection {
            None => say(to_server, &message).context("the server").map(|()| None),
            // A call without an id is not answered.
            Some(objection) => Ok(message.get("id").map(|id| refusal(id, &objection))),
        }
    }

    /// Why a call must not reach the server.
    fn object(&self, call: &Value, runtime: &tokio::runtime::Runtime) -> Option<String> {
        match runtime.block_on(self.gate.ask(&self.question(call))) {
            Ok(answer) if *at(&answer, "/decision") == true => None,
            Ok(answer) => Some(reasons(at(&answer, "/context"))),
            Err(_) if self.options.open => None,
            Err(error) => Some(format!("- nobody can be asked whether it may be done: {error:#}")),
        }
    }

    fn question(&self, call: &Value) -> Value {
        let server = &self.options.server;
        let tool = at(call, "/params/name").as_str().unwrap_or_default();
        let looks = self.looking.lock().unwrap_or_else(PoisonError::into_inner).contains(tool);
        let resource = if server.is_empty() { tool.to_owned() } else { format!("{server}/{tool}") };
        json!({
            "subject": { "type": "agent", "id": self.options.agent },
            "action": {
                "name": tool,
                "properties": { "parameters": at(call, "/params/arguments"), "verb": if looks { "read" } else { "write" } },
            },
            "resource": { "type": "tool", "id": resource },
            // What the agent thinks, where its client says so.
            "context": { "reasoning": at(call, "/params/_meta/reasoning"), "approval": at(call, "/params/_meta/approval") },
        })
    }

    fn pass_back(&self, from_server: impl BufRead, output: &Mutex<impl Write>) -> Result<()> {
        for line in from_server.lines() {
            let line = line?;
            self.note_tools(&line);
            let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
            writeln!(output, "{line}")?;
            output.flush()?;
        }
        Ok(())
    }

    /// Remembers which tools only look: whoever runs the server answers for what it says of them.
    fn note_tools(&self, line: &str) {
        let message: Value = serde_json::from_str(line).unwrap_or_default();
        let tools = at(&message, "/result/tools").as_array().into_iter().flatten();
        let looking = tools.filter(|tool| *at(tool, "/annotations/readOnlyHint") == true);
        let names = looking.filter_map(|tool| at(tool, "/name").as_str().map(str::to_owned));
        self.looking.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
    }
}

/// The result of a call that is not to be made, as MCP has it for tools that fail: the model reads it.
fn refusal(id: &Value, reasons: &str) -> Value {
    let text = format!("Denied before the act, the tool was not called:\n{reasons}");
    let result = json!({ "content": [{ "type": "text", "text": text }], "isError": true });
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

/// Why, what would have complied, and which approval is wanted.
fn reasons(context: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let reasons = at(context, "/reasons").as_array().into_iter().flatten();
    let mut lines: Vec<String> = reasons
        .map(|reason| {
            format!("- {} (would comply: {})", text(at(reason, "/what")), text(at(reason, "/counterfactual")))
        })
        .collect();
    if let Some(approval) = context.get("approval") {
        lines.push(format!("- wants an approval by {} of: {approval}", at(approval, "/people")));
    }
    lines.join("\n")
}

/// What is at a place of a message; null where it has no such place.
fn at<'v>(value: &'v Value, pointer: &str) -> &'v Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

fn say(to: &mut impl Write, message: &Value) -> std::io::Result<()> {
    writeln!(to, "{message}")?;
    to.flush()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// What a tool server is as far as this goes: notes each line that it gets, and says that it did.
    const SERVER: &str = r#"
        echo '{"jsonrpc":"2.0","id":0,"result":{"tools":[{"name":"list_pods","annotations":{"readOnlyHint":true}}]}}'
        while IFS= read -r line; do printf '%s\n' "$line" >> "$0"; echo '{"jsonrpc":"2.0","id":7,"result":{}}'; done"#;

    /// A gate that permits what only looks, and notes what it is asked.
    fn gate(asked: Arc<Mutex<Vec<Value>>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || listener.incoming().for_each(|stream| answer(stream.unwrap(), &asked)));
        url
    }

    fn answer(stream: TcpStream, asked: &Mutex<Vec<Value>>) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut line, mut length) = (String::new(), 0);
        while reader.read_line(&mut line).unwrap() > 2 {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let question: Value = serde_json::from_slice(&body).unwrap();
        let decision = question["action"]["properties"]["verb"] == json!("read");
        asked.lock().unwrap().push(question);
        let answer = json!({ "decision": decision, "context": {
            "reasons": [{ "what": "changes production", "counterfactual": "staging" }],
            "approval": { "operation": "delete_pod", "people": 2, "digest": "sha-256:1" },
        }})
        .to_string();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
        write!(&stream, "{head}\r\ncontent-length: {}\r\n\r\n{answer}", answer.len()).unwrap();
    }

    fn call(tool: &str) -> String {
        json!({ "jsonrpc": "2.0", "id": tool, "method": "tools/call", "params": {
            "name": tool, "arguments": { "name": "web-1" }, "_meta": { "reasoning": "it hangs" },
        }})
        .to_string()
    }

    /// Messages through the proxy: what the server saw of them, and what the client got back.
    fn through(url: &str, open: bool, messages: &[String]) -> (Vec<String>, Vec<Value>) {
        let seen = tempfile::NamedTempFile::new().unwrap();
        let path = seen.path().to_str().unwrap().to_owned();
        let command = ["sh", "-c", SERVER, path.as_str()].map(str::to_owned).to_vec();
        let options = Options { agent: "bot".into(), server: "k8s".into(), url: url.into(), ca: None, open, command };
        let gate = Client::new(url, Some("a-token"), None).unwrap();
        let proxy = Proxy { gate, options, looking: Mutex::new(["list_pods".to_owned()].into()) };
        let output = Arc::new(Mutex::new(Vec::new()));
        proxy.run(messages.join("\n").as_bytes(), &output).unwrap();
        let output = String::from_utf8(output.lock().unwrap().clone()).unwrap();
        let answers = output.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines = std::fs::read_to_string(seen.path()).unwrap().lines().map(str::to_owned).collect();
        (lines, answers.collect())
    }

    fn of<'a>(answers: &'a [Value], id: &str) -> Option<&'a Value> {
        answers.iter().find(|answer| answer["id"] == json!(id))
    }

    #[test]
    fn a_denied_call_never_reaches_the_server_and_says_why() {
        let asked = Arc::default();
        let url = gate(Arc::clone(&asked));
        let listing = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }).to_string();
        let (seen, answers) = through(&url, false, &[listing.clone(), call("list_pods"), call("delete_pod")]);
        assert_eq!(seen.len(), 2, "{seen:?}");
        let passed: Vec<Value> = seen.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let expected: Vec<Value> = [listing, call("list_pods")].map(|line| serde_json::from_str(&line).unwrap()).into();
        assert_eq!(passed, expected);
        let denied = of(&answers, "delete_pod").unwrap();
        assert_eq!(denied["result"]["isError"], true);
        let text = denied["result"]["content"][0]["text"].as_str().unwrap();
        assert!(text.contains("changes production") && text.contains("staging"), "{text}");
        assert!(text.contains("by 2 of") && text.contains("sha-256:1"), "{text}");
        let asked = asked.lock().unwrap();
        let question = asked.iter().find(|question| question["action"]["name"] == "delete_pod").unwrap();
        assert_eq!(question["subject"], json!({ "type": "agent", "id": "bot" }));
        assert_eq!(question["resource"], json!({ "type": "tool", "id": "k8s/delete_pod" }));
        assert_eq!(question["action"]["properties"]["parameters"], json!({ "name": "web-1" }));
        assert_eq!(question["context"]["reasoning"], "it hangs");
    }

    #[test]
    fn without_a_gate_it_is_closed_unless_told_otherwise() {
        let nobody = "http://127.0.0.1:1";
        let (seen, answers) = through(nobody, false, &[call("list_pods")]);
        assert_eq!(seen, Vec::<String>::new());
        assert!(of(&answers, "list_pods").unwrap().to_string().contains("nobody can be asked"));
        let (seen, answers) = through(nobody, true, &[call("list_pods")]);
        assert_eq!((seen.len(), of(&answers, "list_pods")), (1, None));
    }

    #[test]
    fn what_is_not_one_message_is_no_way_round() {
        let url = gate(Arc::default());
        let batch = format!("[{}]", call("delete_pod"));
        let twice = r#"{"jsonrpc":"2.0","id":3,"method":"ping","method":"tools/call","params":{"name":"delete_pod"}}"#;
        let unanswered = json!({ "jsonrpc": "2.0", "method": "tools/call", "params": { "name": "delete_pod" } });
        let messages = [batch, "tools/call".to_owned(), twice.to_owned(), unanswered.to_string()];
        let (seen, answers) = through(&url, false, &messages);
        assert_eq!(seen, Vec::<String>::new());
        assert_eq!(answers.iter().filter(|answer| answer["error"]["code"] == -32700).count(), 2, "{answers:?}");
        assert!(answers.iter().any(|answer| answer["id"] == 3 && answer["result"]["isError"] == true), "{answers:?}");
    }
}
