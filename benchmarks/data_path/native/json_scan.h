// Finds single JSON members without a parser. A quote inside a JSON string is written \", so `"key"` and a colon
// after it is always a key; only the nesting is not looked at.
#pragma once
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

// Where the value of `"key"` starts in [at, end), or NULL. `key` comes with its quotes.
static inline const char *json_value(const char *at, const char *end, const char *key) {
    size_t len = strlen(key);
    while ((at = memmem(at, (size_t)(end - at), key, len)) != NULL) {
        at += len;
        const char *value = at;
        while (value < end && strchr(" \t\r\n", *value) != NULL) value++;
        if (value == end || *value != ':') continue;
        for (value++; value < end && strchr(" \t\r\n", *value) != NULL; value++) {}
        return value < end ? value : NULL;
    }
    return NULL;
}

static inline bool json_is(const char *value, const char *end, const char *literal) {
    size_t len = strlen(literal);
    return value != NULL && (size_t)(end - value) >= len && memcmp(value, literal, len) == 0;
}

static inline long json_integer(const char *value, const char *end, long otherwise) {
    char digits[16] = "";
    if (value == NULL) return otherwise;
    size_t len = 0;
    while (value + len < end && len < sizeof digits - 1 && value[len] >= '0' && value[len] <= '9') len++;
    memcpy(digits, value, len);
    return len ? strtol(digits, NULL, 10) : otherwise;
}
