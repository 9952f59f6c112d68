"""Log files to the server and to S3, so that no line is lost or doubled without being counted.

`tail` finds the files and keeps them open; `live` and `archive` each read them at their own pace;
`checkpoint` remembers where everybody is; `shipping` puts them together.
"""
