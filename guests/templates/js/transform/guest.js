// A transform: it gives the model an instruction, and signs each answer.
// The contract is in wit/1.0.0/transform.wit. A variant is an object { tag, val }, what is missing is undefined.

let settings = {};

const KEYS = ['instruction', 'signature'];

export const guest = {
  describe() {
    const text = { type: 'string' };
    const properties = Object.fromEntries(KEYS.map((key) => [key, text]));
    return {
      name: 'NAME',
      version: '0.1.0',
      summary: 'instructs and signs',
      configSchema: JSON.stringify({ type: 'object', additionalProperties: false, properties }),
      honours: [],
    };
  },

  // Takes `config`, which is in `[guests.NAME]` or where a model uses this guest.
  configure(config) {
    settings = JSON.parse(config);
    const problems = [];
    for (const [key, value] of Object.entries(settings)) {
      if (!KEYS.includes(key)) {
        problems.push({ key, message: `there is no such key: use ${KEYS.join(' or ')}` });
      } else if (typeof value !== 'string') {
        problems.push({ key, message: 'this is not a string' });
      }
    }
    if (problems.length > 0) throw problems;
  },
};

// Watches one answer.
class Filter {
  // The next pieces of the answer pass as they come.
  take(deltas) {
    return { tag: 'forward', val: deltas };
  }

  finish(outcome) {
    return {
      deltas: [{ tag: 'content', val: `\n${settings.signature}` }],
      finishReason: outcome.finishReason,
    };
  }
}

export const transform = {
  Filter,

  open(context, request) {
    let decision = { tag: 'pass' };
    if (settings.instruction) {
      const content = { tag: 'text', val: settings.instruction };
      const messages = [{ role: 'system', content, toolCalls: [] }, ...request.messages];
      decision = { tag: 'rewrite', val: { ...request, messages } };
    }
    return { decision, filter: settings.signature ? new Filter() : undefined };
  },
};
