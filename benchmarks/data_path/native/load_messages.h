// The requests' bytes: built once, sent many times.
#pragma once
#include "load_state.h"

static void add_json_string(struct buffer *out, const char *text) {
    buffer_add(out, "\"", 1);
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') buffer_print(out, "\\%c", c);
        else if (c < 0x20) buffer_print(out, "\\u%04x", c);
        else buffer_add(out, text, 1);
    }
    buffer_add(out, "\"", 1);
}

static bool is_chat(void) { return strstr(load.options.path, "chat/") != NULL; }

static void build_body(struct buffer *body) {
    const struct options *o = &load.options;
    buffer_print(body, "{\"model\":");
    add_json_string(body, o->model);
    buffer_print(body, is_chat() ? ",\"messages\":[{\"role\":\"user\",\"content\":" : ",\"prompt\":");
    add_json_string(body, o->prompt);
    buffer_print(body, is_chat() ? "}]" : "");
    buffer_print(body, ",\"max_tokens\":%ld,\"temperature\":0,\"ignore_eos\":true", o->tokens);
    // OpenAI refuses stream_options without a stream.
    buffer_print(body, o->is_stream ? ",\"stream\":true,\"stream_options\":{\"include_usage\":false}}" : ",\"stream\":false}");
}

static void add_message(const char *body, size_t len) {
    const struct options *o = &load.options;
    const char *limit = json_value(body, body + len, "\"max_completion_tokens\"");
    if (limit == NULL) limit = json_value(body, body + len, "\"max_tokens\"");
    load.messages = checked(realloc(load.messages, (load.message_count + 1) * sizeof *load.messages));
    struct message *m = &load.messages[load.message_count++];
    *m = (struct message){.tokens = json_integer(limit, body + len, o->tokens)};
    buffer_print(&m->bytes, "POST %s HTTP/1.1\r\nHost: %s:%s\r\nContent-Type: application/json\r\nAccept: */*\r\n", o->path, o->host,
                 o->port);
    buffer_add(&m->bytes, o->headers.data, o->headers.len);
    buffer_print(&m->bytes, "Content-Length: %zu\r\n\r\n", len);
    buffer_add(&m->bytes, body, len);
}

static struct buffer read_file(const char *path) {
    struct buffer content = {0};
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    do {
        buffer_reserve(&content, 65536);
        content.len += fread(content.data + content.len, 1, 65536, file);
    } while (!feof(file) && !ferror(file));
    fclose(file);
    return content;
}

static void add_lines(const struct buffer *content) {
    const char *at = content->data, *end = at + content->len;
    while (at < end) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        if (stop == NULL) stop = end;
        if (stop > at) add_message(at, (size_t)(stop - at));
        at = stop + 1;
    }
}

static void build_messages(void) {
    const struct options *o = &load.options;
    struct buffer body = {0};
    if (o->bodies_file) {
        body = read_file(o->bodies_file);
        add_lines(&body);
    } else {
        if (o->body_file) body = read_file(o->body_file);
        else build_body(&body);
        add_message(body.data, body.len);
    }
    buffer_free(&body);
    if (load.message_count == 0) {
        fprintf(stderr, "no request bodies\n");
        exit(2);
    }
}

// Closed loop: by turns. Open loop: drawn, so that a seed names the whole arrival process.
static const struct message *next_message(void) {
    if (load.message_count == 1) return load.messages;
    size_t draw = is_open_loop() ? (size_t)(random_share() * (double)load.message_count) : load.next_message++;
    return &load.messages[draw % load.message_count];
}
