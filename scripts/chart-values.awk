# The table of docs/chart.md from values.yaml: what stands in the lines above a value is its text. A key
# without a value is a part, and its text is what its values have in common.
# Ends with 1 where a value has no text.
function fail(what) { print FILENAME ":" FNR ": " what >"/dev/stderr"; failed = 1 }
BEGIN { print "| value | default | what |"; print "|---|---|---|" }
/^ *#/ { line = $0; sub(/^ *# ?/, "", line); text = text == "" ? line : text " " line; next }
/^ *[A-Za-z]+:/ {
  depth = match($0, /[^ ]/) - 1
  colon = index($0, ":")
  names[depth / 2] = substr($0, depth + 1, colon - depth - 1)
  path = names[0]
  for (level = 1; level <= depth / 2; level++) path = path "." names[level]
  value = substr($0, colon + 2)
  gsub(/\|/, "\\|", text)
  if (value != "" && text == "") fail(path " has no comment")
  if (text != "") print "| `" path "` | " (value == "" ? "" : "`" value "`") " | " text " |"
  text = ""
  next
}
/^$/ { text = ""; next }
{ fail("neither comment nor value on one line") }
END { exit failed }
