output "region" {
  description = "Region of it all."
  value       = var.region
}

output "host_id" {
  description = "Instance id of the host."
  value       = aws_instance.host.id
}

output "session_command" {
  description = "A shell on the host, recorded."
  value       = "aws ssm start-session --region ${var.region} --target ${aws_instance.host.id} --document-name ${aws_ssm_document.session.name}"
}

output "ui_command" {
  description = "Dagster's UI at http://127.0.0.1:3000 as long as this runs."
  value       = "aws ssm start-session --region ${var.region} --target ${aws_instance.host.id} --document-name AWS-StartPortForwardingSession --parameters portNumber=3000,localPortNumber=3000"
}

output "buckets" {
  description = "Landing and backup bucket."
  value       = { landing = local.landing_bucket_name, backup = local.backup_bucket_name }
}

output "parameter_names" {
  description = "Parameters that must be put by hand before the host starts its work; their values never pass through Terraform."
  value       = local.parameters
}

output "key_alias" {
  description = "Key that the parameters are put with."
  value       = aws_kms_alias.main.name
}

output "s3_endpoint_id" {
  description = "Gateway endpoint, for the bucket policies of a package mirror or an existing landing bucket."
  value       = local.s3_endpoint_id
}

output "host_role_arn" {
  description = "Role of the host, for the policies of an existing landing bucket and its key."
  value       = aws_iam_role.host.arn
}

output "alarm_topic_arn" {
  description = "Topic of the alarms."
  value       = aws_sns_topic.alarms.arn
}

output "landing_queue_arn" {
  description = "Queue for the notifications of an existing landing bucket; null without landing_events."
  value       = one(aws_sqs_queue.landing[*].arn)
}

output "env" {
  description = "Lines of .env for a client in the VPC; its password goes into PGPASSWORD or ~/.pgpass."
  value = join("\n", concat(
    ["BTC_ASSETS_DSN=postgresql://btc_loader@${aws_instance.host.private_dns}:5432/btc?sslmode=require"],
    [for name, value in local.settings : "${name}=${value}"],
  ))
}
