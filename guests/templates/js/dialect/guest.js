// A dialect: an API of one route, `POST /NAME`, which takes `{"prompt": "…"}` and answers with plain text.
// The contract is in wit/1.0.0/dialect.wit. A variant is an object { tag, val }, what is missing is undefined.

let settings = {};

export const guest = {
  describe() {
    const properties = { model: { type: 'string' } };
    return {
      name: 'NAME',
      version: '0.1.0',
      summary: 'a prompt in, plain text out',
      configSchema: JSON.stringify({ type: 'object', additionalProperties: false, properties }),
      honours: [],
    };
  },

  // Takes `config`, which is in `[guests.NAME]`.
  configure(config) {
    settings = { model: 'claude-haiku', ...JSON.parse(config) };
    const problems = [];
    for (const [key, value] of Object.entries(settings)) {
      if (key !== 'model') {
        problems.push({ key, message: 'there is no such key: use model' });
      } else if (typeof value !== 'string') {
        problems.push({ key, message: 'this is not a string' });
      }
    }
    if (problems.length > 0) throw problems;
  },
};

// One call on its way.
class Call {
  begin() {
    return { status: 200, contentType: 'text/plain', headers: [] };
  }

  take(choice, deltas) {
    const texts = deltas.filter((delta) => delta.tag === 'content');
    return texts.map((delta) => delta.val).join('');
  }

  endChoice(choice, outcome) {
    return '';
  }

  finish() {
    return '\n';
  }

  fail(failure) {
    return `\n${failure.message}\n`;
  }

  keepAlive() {
    return '';
  }

  listModels(models) {
    return dialect.renderError({ status: 400, message: 'this API has no list of models' });
  }
}

export const dialect = {
  Call,

  serve() {
    return { routes: [{ method: 'POST', path: '/NAME' }], keyHeaders: [], headers: [] };
  },

  open(context, http) {
    let prompt;
    try {
      ({ prompt } = JSON.parse(http.body));
    } catch (error) {
      throw { kind: 'invalid-request', message: error.message };
    }
    if (typeof prompt !== 'string') {
      throw { kind: 'invalid-request', message: '`prompt` is not a string', param: 'prompt' };
    }
    const message = { role: 'user', content: { tag: 'text', val: prompt }, toolCalls: [] };
    const request = {
      messages: [message],
      tools: [],
      outputFormat: { tag: 'text' },
      stream: true,
      sampling: {},
      stop: [],
    };
    const completion = { model: settings.model, choices: 1, request, call: new Call() };
    return { tag: 'completion', val: completion };
  },

  renderError({ status, message }) {
    const headers = [{ name: 'content-type', value: 'text/plain' }];
    return { status, headers, body: `${message}\n` };
  },
};
