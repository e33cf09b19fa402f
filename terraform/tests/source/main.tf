# The module's own source, for the rules that no plan can show.

output "files" {
  description = "Text of each file, by its name."
  value       = { for name in fileset("${path.module}/../..", "*.tf") : name => file("${path.module}/../../${name}") }
}

output "text" {
  description = "All of them as one text."
  value       = join("\n", [for name in fileset("${path.module}/../..", "*.tf") : file("${path.module}/../../${name}")])
}
