// An adapter for a program that reads a conversation from its standard input, and prints the answer.
// The contract is in wit/1.0.0/adapter.wit. A variant is an object { tag, val }, what is missing is undefined.

let settings = {};

export const guest = {
  describe() {
    const properties = { cue: { type: 'string' } };
    return {
      name: 'NAME',
      version: '0.1.0',
      summary: 'writes a conversation line by line',
      configSchema: JSON.stringify({ type: 'object', additionalProperties: false, properties }),
      honours: [],
    };
  },

  // Takes `config`, which is in `[guests.NAME]` or in the backend's `adapter`.
  configure(config) {
    settings = { cue: 'assistant:', ...JSON.parse(config) };
    const problems = [];
    for (const [key, value] of Object.entries(settings)) {
      if (key !== 'cue') {
        problems.push({ key, message: 'there is no such key: use cue' });
      } else if (typeof value !== 'string') {
        problems.push({ key, message: 'this is not a string' });
      }
    }
    if (problems.length > 0) throw problems;
  },
};

// The text of a message.
function text(content) {
  if (content === undefined) return '';
  if (content.tag === 'text') return content.val;
  return content.val
    .map((part) => {
      if (part.tag !== 'text') {
        throw { kind: 'unsupported-parameter', message: 'this model takes text only' };
      }
      return part.val.text;
    })
    .join('');
}

// One request on one process.
class Session {
  static open(context, request) {
    const session = new Session();
    const lines = request.messages.map(({ role, content }) => `${role}: ${text(content)}\n`);
    session.prompt = `${lines.join('')}${settings.cue}\n`;
    return session;
  }

  launchOptions() {
    return [];
  }

  start() {
    return [{ tag: 'write', val: this.prompt }, { tag: 'close-input' }];
  }

  // The profile `generic` hands on what the program prints as it comes.
  output(pieces) {
    return pieces.map((piece) => ({ tag: 'emit', val: { tag: 'content', val: piece } }));
  }

  exit(status, stderrTail) {
    if (status === 0) return [{ tag: 'finish', val: { finishReason: 'stop' } }];
    return [{ tag: 'fail', val: { kind: 'backend-failed', message: 'the program failed' } }];
  }
}

export const adapter = { Session };
